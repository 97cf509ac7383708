"""E. Configuration: keys and values as they are typed."""

from tests.trials.row import Row
from tests.trials.words import defended, refused, refused_by_run, said, taken

LIST = r"\[tensorboard\]"
STAGES = r"all, sft, rm, ppo, reinforce, rloo, grpo, dpo, raft"

EPISODES = [
    refused("ppo.total_episods=10", r"did you mean ppo\.total_episodes\?"),
    *(refused(f"ppo.total_episodes={n}", r"total_episodes=.*(less than one rollout|positive)")
      for n in ("0", "-5")),
    taken("ppo.total_episodes=1e6", r"total_episodes: 1000000\b", section="ppo"),
    *(refused(f"ppo.total_episodes={v}", r"is not a whole number")
      for v in ("1000.5", "lots", "[1,2]")),
    refused("ppo.total_episodes=null", r"may not be null"),
    refused("ppo.total_episodes=1" + "0" * 25, r"ppo\.total_episodes.*(most|large|greater|exceed)"),
    refused("ppo.batch.rollout=100", r"not a multiple of ppo\.batch\.minibatch"),
    refused("ppo.batch.minibatch=0", r"must be positive"),
    refused("ppo.batch.rollout=0", r"must be positive|multiple|at least"),
]  # fmt: skip

RATES = [
    *(refused(f"sft.optim.lr={v}", r"sft\.optim\.lr=.*(positive|finite)")
      for v in ("-1", "nan", "0")),
    *(refused(f"sft.optim.lr={v}", r"sft\.optim\.lr=inf") for v in ("inf", "1e400")),
    Row(tried="`sft.optim.lr=1e3`", quick=True,
        play=lambda place: place.rlhf("config", "sft.optim", "sft.optim.lr=1e3"),
        has=(r"sft\.optim\.lr.*(large|high|above)",), kept=(r"lr: 1000",),
        defended="no bound holds for every model; a loss that is not finite stops the run and "
                 "names the key"),
    *(refused(f"sft.optim.lr={v}", r"is not a number") for v in ("abc", "[1e-4,1e-5]")),
    refused("sft.optim.lr=1e-4,1e-5", r"is ambiguous.* -m"),
    *(refused(f"{v}=1e-4", r"did you mean .*sft\.optim\.lr")
      for v in ("sft.lr", "lr", "learning_rate", "sft.learning_rate")),
    refused("batch_size=8", r"did you mean .*sft\.batch\.size"),
    refused("sft.batch_size=8", r"did you mean sft\.batch\.size"),
    *(refused(f"sft.optim.betas={v}", r"betas.*two numbers") for v in ("[0.9]", "[0.9,1.0]")),
    refused("sft.optim.betas=0.9", r"betas.*(list|\[)"),
    refused("sft.epochs=1.5", r"is not a whole number"),
    refused("sft.epochs=0", r"must be positive"),
    refused("sft.schedule.kind=polynomial", r"not one of constant, linear, cosine"),
    refused("sft.schedule.kind=Cosine", r"did you mean cosine"),
    *(refused(f"sft.schedule.warmup={v}", r"share of the steps") for v in ("100", "-0.1")),
    refused("sft.schedule.final=nan", r"share of the peak|finite"),
    refused("sft.schedule=linear", r"sft\.schedule\.kind=linear"),
    refused("sft.batch.microbatch=null sft.batch.max_tokens=null", r"one must limit"),
    refused("sft.batch.microbatch=-1", r"must be positive or null"),
    refused("sft.batch.size=3.5", r"is not a whole number"),
    refused("sft.select_by=rm_score", r"needs sft\.reward_model"),
    refused("sft.dropout=1", r"must lie in \[0, 1\)"),
    refused("sft.loss_on=prompt", r"not one of response, all"),
]  # fmt: skip

REWARD = [
    refused("rm.ties=keep", r"not one of drop, soft"),
    *(refused(f"rm.margin={v}", r"rm\.margin=") for v in ("-1", "nan", "inf")),
    refused("rm.label_smoothing=0.5", r"must lie in \[0, 0\.5\)"),
    refused("rm.ties=rao_kupper rm.tie_param=1", r"must lie in \(1, inf\)"),
    refused("rm.ties=davidson rm.margin=1", r"models ties itself"),
]  # fmt: skip

PPO = [
    *(refused(f"ppo.kl.coef={v}", r"ppo\.kl\.coef=.*(at least 0|finite)")
      for v in ("-0.1", "nan", "inf")),
    refused("ppo.kl.controler=adaptive", r"did you mean ppo\.kl\.controller"),
    refused("ppo.kl.controller=adaptative", r"did you mean adaptive"),
    *(refused(f"ppo.clip_eps={v}", r"must lie in \(0, 1\)") for v in ("0", "1.5")),
    refused("ppo.temperature=0", r"must be positive"),
    refused("ppo.gamma=1.1", r"must lie in \(0, 1\]"),
    refused("ppo.gae_lambda=2", r"must lie in \[0, 1\]"),
    refused("ppo.vf_coef=inf", r"ppo\.vf_coef=inf"),
    refused("ppo.ema_decay=1", r"must lie in \(0, 1\)"),
    refused("ppo.kl_stop.run=-1", r"ppo\.kl_stop\.run="),
    refused("ppo.kl_stop.iteration=nan", r"ppo\.kl_stop\.iteration="),
    refused("ppo.alerts.length=-2", r"ppo\.alerts\.length="),
    refused("ppo.alerts.eos_rate=7", r"ppo\.alerts\.eos_rate="),
    refused("ppo.ptx.coef=27.8 data=generic", r"needs data\.pretraining"),
    refused("ppo.value_init=random", r"not one of rm, sft"),
]  # fmt: skip

METHODS = [
    *(refused(f"{stage}.group=1", rf"set {stage}\.group=2 or more") for stage in ("rloo", "grpo")),
    refused("rloo.batch.rollout=128 rloo.batch.minibatch=128 rloo.group=3",
            r"must divide rloo\.batch\.rollout"),
    refused("grpo.kl.estimator=k1", r"no gradient on average.*weighted=true"),
    refused("best_of_n.n=100", r"more than best_of_n\.samples=64"),
    refused("raft.keep=worst", r"not one of best, top, random"),
    refused("raft.top=0", r"share of the samples of a round"),
    refused("dpo.loss=hinge", r"not one of sigmoid, ipo, ipo_mean, robust"),
    refused("dpo.beta=0", r"must be positive"),
    refused("rm.members=0", r"must be positive"),
    refused("reward.combine=median", r"not one of mean, worst, penalised"),
    refused("parents.rm=[a,a]", r"at least one reward model, and each once"),
]  # fmt: skip

STAGE = [
    *(refused(f"stage={v}", STAGES, lacks=("did you mean ppo",))
      for v in ("kto", "[sft,kto]", "1", "[1]")),
    taken("stage=[ppo,sft]"),
    taken("stage=[sft,sft]"),
    *(refused(f"stage={v}", r"stage is empty") for v in ("[]", "null")),
    refused("stage=sft,rm", r"stage=\[sft,rm\]"),
    refused("stage=SFT", r"did you mean (stage=)?sft"),
]  # fmt: skip

PLAIN = r"plain folder name|name="
NAMES = [
    Row(tried="`seed=-1`", quick=True, play=lambda place: place.rlhf("config", "seed=-1"),
        code=(2,), has=(r"seed=-1",), kept=(r"seed: -1",),
        defended="every generator takes it; only its size is bounded"),
    refused("seed=1.5", r"is not a whole number"),
    refused("seed=abc", r"is not a whole number"),
    refused("seed=99999999999999999999999", r"seed=9+"),
    *(refused(f"name={v}", PLAIN)
      for v in ("", "..", "../x", "/abs", "a/b", ".hidden", "a/../b", "a/", "a//b",
                "sft/.sft.work")),
    refused('"name=\'a\nb\'"', PLAIN),
    refused("name=-x", PLAIN, kept=("name: '?-x",),
            defended="`rlhf show -- -x` and runs/-x both reach it"),
    *(taken(f"name={v}", r"name: ") for v in ("'\"a b\"'", "a..b")),
    refused("name=null", r"may not be null"),
    refused("name=[a,b]", r"name=.*(text|string|one name|plain|list)", lacks=("Cannot convert",)),
    refused("name='~'", r"name"),
    refused("name=ein-köter", r"name=.*quote|'\"", kept=("quot|name: ",),
            defended="Hydra's grammar wants quotes round letters outside ASCII"),
    refused("runs_dir=", r"runs_dir"),
    refused("runs_dir=null", r"may not be null"),
    taken("dry_run=yes", r"dry_run: true"),
    refused("dry_run=maybe", r"is not true or false"),
    refused("resume=always", r"not one of auto, last_valid, never"),
]  # fmt: skip

NO_MODEL = r"no such folder|does not exist|no folder"
MODELS = [
    *(refused(f"model={v}", r"did you mean model=gpt2\b") for v in ("gpt", "gpt3")),
    refused("model=qwen", r"did you mean model=qwen"),
    refused("model=", r"model= is no choice|model is one of"),
    refused("model=null", r"model", lacks=("Config group",)),
    refused_by_run("model=nosuch stage=sft", r"nosuch"),
    refused_by_run("model=./nosuchdir stage=sft", NO_MODEL, lacks=("connect",)),
    refused("data=nosuch", r"data is one of alpaca"),
    refused("data=hh_loca", r"did you mean data=hh_local"),
    refused("runtime=gpu", r"runtime is one of auto"),
    refused("runtime=zero4", r"did you mean runtime=zero3"),
]  # fmt: skip

RUNTIME = [
    refused_by_run("runtime.device=gpu stage=sft", r"runtime\.device=gpu.*cuda", lacks=("ipu",)),
    *(refused_by_run(f"runtime.device={v} stage=sft", rf"runtime\.device={v}") for v in
      ("cuda:99", "tpu")),
    Row(tried="`rlhf run runtime.device=cuda` where there is no GPU", code=(2,),
        has=(r"runtime\.device=cuda",),
        play=lambda place: place.command("run", "runtime.device=cuda", "stage=sft", patience=120,
                                         CUDA_VISIBLE_DEVICES="-1")),
    *(refused(f"runtime.dtype={v}", r"not one of auto, float32, bfloat16")
      for v in ("float16", "fp8")),
    refused("runtime.num_processes=0", r"must be positive or null"),
    refused_by_run("runtime.num_processes=1000 stage=sft", r"runtime\.num_processes=1000"),
    refused("runtime.num_threads=0", r"must be positive or null"),
    *(refused(f"runtime.timeout={v}", r"must be positive|finite") for v in ("-1", "nan")),
    refused("runtime.deepspeed=foo", r"runtime\.deepspeed", lacks=("Cannot assign", "Dict\\[")),
    refused("runtime.deepspeed.stage=2", r"\+runtime\.deepspeed\.stage"),
    refused("runtime=zero2 runtime.compile=true", r"runtime\.compile"),
    refused("experiment=smok", r"did you mean experiment=smoke"),
    refused("experiment=smoke,nplus", r"experiment.*(one|-m)", lacks=(r"\[smoke,nplus\]",)),
]  # fmt: skip

DATA = [
    *(refused(f"data.eval_fraction={v}", r"must lie in \(0, 1\)") for v in ("0", "1")),
    refused("data.max_bad_fraction=2", r"must lie in \[0, 1\]"),
    refused("data.max_prompt_tokens=0", r"must be positive"),
    *(refused_by_run(f"data.template={v} stage=sft", r"data\.template=nosuch") for v in
      ("nosuch", "nosuch.jinja")),
    *(refused(f"data.demonstrations={v}", r"\[\{path: foo(\.jsonl)?\}\]|write \[\.\.\.\]")
      for v in ("foo.jsonl", "[foo.jsonl]", "'{path: foo}'")),
    refused("data.demonstrations=[{}]", r"path"),
    refused("'data.demonstrations=[{pth: x}]'", r"did you mean path"),
    refused("data.demonstrations=null", r"data\.demonstrations.*\[\]", lacks=("Optional",)),
    refused("evaluation.prompts=1", r"at least 2"),
    refused("evaluation.best_of_n=-1", r"must be at least 0"),
    refused("evaluation.batch=0", r"must be positive"),
    refused("samples=-1", r"must be at least 0"),
    *(refused(f"tracking.every={v}", r"tracking\.every=") for v in ("0", "-1")),
    refused("tracking.trackers=[mlflow]", r"not one of tensorboard"),
    refused("tracking.trackers=tensorboard", LIST),
    taken("tracking.trackers=[wandb]", r"wandb", section="tracking"),
    refused("save.keep=0", r"at least 1"),
    refused("save.every_minutes=0", r"must be positive or null"),
    refused("save.every_steps=0", r"must be positive or null"),
    *(refused(f"tiny_world.noise={v}", r"tiny_world\.noise=") for v in ("-1", "nan")),
    *(refused(f"tiny_world.completions={v}", r"\[fewest, most\] within 2 and 9")
      for v in ("[1,2]", "[4,20]")),
    refused("tiny_world.demonstrations=5", r"at least 20"),
]  # fmt: skip

GRAMMAR = [
    refused_by_run("parents.sft=/nosuch stage=ppo", r"parents\.sft"),
    refused_by_run("parents.sft=gpt2 stage=rm", r"parents\.sft=gpt2",
                   r"org/|owner/|openai-community/gpt2|folder"),
    refused("parents.foo=x", r"did you mean parents|parents has"),
    refused("+foo=1", r"unknown key 'foo'"),
    refused("+sft.foo=1", r"unknown key 'sft\.foo'"),
    *(refused(f"'~{v}'", rf"{v} has no value|{v} .*cannot be taken") for v in
      ("sft", "sft.optim.lr")),
    taken("sft", r"epochs"),
    refused("sft=1", r"sft is a section"),
    refused("sft.optim=foo", r"sft\.optim is a section"),
    refused("=5", r"=5|key=value"),
    taken("'sft.optim={lr: 1}'", r"lr: 1", section="sft.optim"),
    taken("ppo={}", r"."),
    defended("hydra.run.dir=elsewhere",
             "Hydra's own node is not a setting of a run and changes nothing that a run writes",
             r"name: ", better=r"hydra"),
    refused("--foo", r"unknown option --foo"),
    said("run --cfg", r".", code=(0, 2), lacks=("usage:",)),
    refused("--config-name=foo", r"no foo\.yaml"),
    refused("--config-dir=/nosuch", r"/nosuch"),
]  # fmt: skip

ROWS_OF_WORDS = [
    *EPISODES,
    *RATES,
    *REWARD,
    *PPO,
    *METHODS,
    *STAGE,
    *NAMES,
    *MODELS,
    *RUNTIME,
    *DATA,
    *GRAMMAR,
]
