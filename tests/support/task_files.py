"""Task files as text: entailment with options, sums with rationales."""

RTE = """
name: rte
clusters: [nli]
source: rte.jsonl
options: ["yes", "no"]
answer: "{{ options[label] }}"
templates:
  - {name: conclude, input: "{{ premise }}\\nSo {{ hypothesis }}?\\n{{ options_ }}", target: "{{ answer }}"}
  - {name: invent, turned_around: true, input: "Write a premise.", target: "{{ premise }}"}
  - {name: follows, input: "Does {{ hypothesis }} follow from {{ premise }}?", target: "{{ answer }}"}
"""
SUMS = """
name: sums
clusters: [arithmetic]
groups: [numbers]
source: sums.jsonl
answer: "{{ total }}"
rationale: "{{ a }} plus {{ b }} is {{ total }}."
templates:
  - {name: plain, input: "what is {{ a }} plus {{ b }}", target: "{{ answer }}"}
"""
