"""A world small enough for tests, painted and put through the pipeline's first stages once a session."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.workspace import Workspace
from linked import linked

pytest_plugins = ["smoke_clone"]

# before torch and numpy are imported: matrices this small are slower on two threads, more so beside another process
os.environ["OMP_NUM_THREADS"] = "1"

TINY = """\
profile: smoke
seed: 7
machine: {threads: 1, device: cpu, precision: fp32}
data: {folder: data, annotations: true, size: 64, split: 75/25, bad_share: 0.01}
base:
  source: train
  location: null
  revision: null
  train:
    preset: tiny
    photographs: 12
    works: 6
    unseen_styles: []
    prompts_per_picture: 2
    empty_prompts: 0.1
    shift: 0
    autoencoder: {steps: 3, batch: 4, learning_rate: 0.001, decay: cosine, warmup: 1, beta2: 0.99,
                  weight_decay: 0.0, clip: 1.0, ema: 0, checkpoint_every: 2}
    denoiser: {steps: 4, batch: 4, learning_rate: 0.001, decay: cosine, warmup: 1, beta2: 0.99,
               weight_decay: 0.0, clip: 1.0, ema: 2, checkpoint_every: 2}
sampling: {steps: 2, batch: 4}
perceptual: {network: trunk, weights: data/trunk/trunk.safetensors, heads: data/trunk/heads.safetensors}
field_judges: {inception: null, clip: null, dinov2: null}
protocol:
  training_seeds: [0, 1]
  repeats: 2
  pictures: 3
  guidance: [1.0, 4.0]
  prompts: {level: 1, per_work: 2}
base_model: {pictures: 3, guidance: [1.0, 4.0], measured_at: 4.0}
art_finetuning:
  variants: [conditional, mixed, full]
  adapters:
    conditional: {rank: 2, empty_prompts: 0.0}
    mixed: {rank: 3, empty_prompts: 0.2}
    full: {rank: null, empty_prompts: 0.2, learning_rate: 0.001}
  optimisation: {steps: 24, batch: 4, learning_rate: 0.01, decay: cosine, warmup: 2, beta2: 0.999,
                 weight_decay: 0.0, clip: 1.0, ema: 0, checkpoint_every: 5}
  diagnosed: [mixed, full]
prompt_enrichment: {models: [mixed], levels: [0, 2]}
vae_decoder:
  variants: [mse, all]
  decoders:
    mse: {scope: upsamplers, mse: 1.0, lpips: 0.0, ffl: 0.0}
    all: {scope: upsamplers, mse: 1.0, lpips: 0.1, ffl: 1.0}
  crop: 0
  checkpointing: false
  optimisation: {steps: 24, batch: 4, learning_rate: 0.003, decay: cosine, warmup: 2, beta2: 0.99,
                 weight_decay: 0.0, clip: 1.0, ema: 2, checkpoint_every: 5}
  models: [untuned, mixed]
  guidance: [4.0]
signal_leak:
  trained: [mosaic, sd-betas]
  models:
    mosaic: {style: Mosaic}
    sd-betas: {betas: [0.00085, 0.012]}
  rank: 2
  optimisation: {steps: 4, batch: 4, learning_rate: 0.003, decay: cosine, warmup: 1, beta2: 0.99,
                 weight_decay: 0.0, clip: 1.0, ema: 0, checkpoint_every: 2}
  styles: {mosaic: Mosaic, expressionism: Expressionism}
  guidance: 4.0
  pictures: 3
  frequencies: [1, 3]
  targets: [2]
  offset: 0.1
  values: [-1.0, 0.0, 1.0]
  each_value: 2
  dark: at night
  bright: at noon
latent_perceptual:
  corpus: {photographs: 12, held_out: 10}
  variants: [plain, lpl, reweighted, pixels, older, older-lpl]
  ablations: []
  ablation_seeds: []
  trainings:
    plain: {loss: plain}
    lpl: {loss: perceptual, tau: 20.0}
    reweighted: {loss: reweighted, tau: 20.0}
    pixels: {loss: perceptual, depth: pixels, tau: 20.0}
    older: {loss: plain, before: 3}
    older-lpl: {loss: perceptual, before: 3, tau: 20.0}
  rank: null
  crop: 0
  slices: 3
  optimisation: {steps: 24, batch: 4, learning_rate: 0.01, decay: cosine, warmup: 2, beta2: 0.999,
                 weight_decay: 0.0, clip: 1.0, ema: 0, checkpoint_every: 5}
  guidance: 4.0
  pictures: 3
  followed: [plain, lpl]
  averages: [1, 4]
  steps: [1, 2]
  pictures_in_steps: 3
  inspected: 3
pixel_space:
  style: Expressionism
  judges: data/defects
  judge_training: null
  curated: {painted: 12, kept: 8, held_out: 10}
  candidates: {prompts: 6, each: 2, guidance: 4.0}
  variants: [latent, pixel, both, both-clean, dpo-latent, dpo-pixel, dpo-both, simpo-both]
  ablations: [share-30]
  ablation_seeds: [0, 1]
  trainings:
    latent: {method: supervised, terms: latent}
    pixel: {method: supervised, terms: pixel}
    both: {method: supervised, terms: both}
    both-clean: {method: supervised, terms: both, decoded: clean}
    dpo-latent: {method: dpo, terms: latent}
    dpo-pixel: {method: dpo, terms: pixel}
    dpo-both: {method: dpo, terms: both}
    simpo-both: {method: simpo, terms: both, noise: separate}
    share-30: {method: supervised, terms: both, share: 0.3}
  rank: 2
  crop: 0
  slices: 3
  beta: 10.0
  simpo_beta: 4.0
  margin: 0.0
  most: 1.2
  supervised: {steps: 24, batch: 4, learning_rate: 0.003, decay: cosine, warmup: 2, beta2: 0.999,
               weight_decay: 0.0, clip: 1.0, ema: 0, checkpoint_every: 5}
  preference: {steps: 24, batch: 3, learning_rate: 0.003, decay: constant, warmup: 2, beta2: 0.999,
               weight_decay: 0.0, clip: 1.0, ema: 0, checkpoint_every: 5}
  guidance: 4.0
  pictures: 3
  restored: 2
  strength: 0.5
  inspected: 3
  sitting: 4
shaping:
  model: flow
  reward: colour
  rewards: [colour, brightness, subject, style]
  steps: 4
  levels: [0.25, 0.5, 0.75]
  candidates: {prompts: 2, each: 4}
  rules:
    top-10: {k: 1, m: 4}
    best-of-4: {k: 1, m: 4}
    best-of-2: {k: 1, m: 2}
    threshold: {least: 0.0}
  variants: [graft, pgraft-25, pgraft-50, pgraft-50-x0, pgraft-50-sde, graft-sde, best-of-2, plain, policy]
  second: [graft-2]
  third: [graft-3]
  trainings:
    graft: {}
    pgraft-25: {level: 0.25}
    pgraft-50: {level: 0.5}
    pgraft-50-x0: {level: 0.5, target: x_0}
    pgraft-50-sde: {level: 0.5, solver: sde}
    graft-sde: {solver: sde}
    best-of-2: {rule: best-of-2}
    plain: {method: plain}
    policy: {method: policy, solver: sde}
    graft-2: {round: 2}
    graft-3: {round: 3}
  rank: 2
  optimisation: {steps: 24, batch: 4, learning_rate: 0.003, decay: cosine, warmup: 2, beta2: 0.999,
                 weight_decay: 0.0, clip: 1.0, ema: 0, checkpoint_every: 5}
  policy: {rounds: 2, learning_rate: 0.003, clip: 0.1, most: 5.0}
  guidance: 4.0
  pictures: 3
  flow:
    conversion: 3
    steps: [2, 4]
    shift: 0.25
    inverted: 5
    iterations: 6
    watched: 5
    width: 8
    corrector_steps: 1
    optimisation: {steps: 4, batch: 4, learning_rate: 0.003, decay: cosine, warmup: 1, beta2: 0.999,
                   weight_decay: 0.0, clip: 1.0, ema: 0, checkpoint_every: 2}
    pictures: 3
  inspected: {states: 2, each: 2, pictures: 3, times: 2}
"""

# the stages in one process: importing diffusers costs more than all of them
PAINTED = """
from atelier.data.painter import write_world
from pathlib import Path
write_world(Path("data"), works=24, photographs=8, seed=3, size=64, workers=1)
"""
STAGES = (
    PAINTED
    + """
from atelier.cli import main
import torch
from atelier.models import defect_judge, trunk
from atelier.training.defects import NAMES
net = trunk.build(3)
trunk.save(net, [torch.ones(c) for c in net.channels], Path("data/trunk"), {})
for seed, (role, kind) in enumerate((("choosing", "plain"), ("measuring", "residual"))):  # untrained
    defect_judge.save(defect_judge.build(kind, NAMES, seed), Path("data/defects") / role, {})
shared = (["prepare"], ["judges"], ["base"], ["cache"], ["starts"], ["reference"])
shared += (["latent_perceptual", "corpus"], ["pixel_space", "judges"], ["pixel_space", "choose"])
assert all(main(stage) == 0 for stage in shared)
"""
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests first: workers that take whole files then end at about the same time.

    One file makes the run of the smoke profile; the files that share it come after those that need none, so that no
    worker waits for it.
    """

    def marked(*names: str) -> set[Path]:
        return {item.path for item in items if any(map(item.get_closest_marker, names))}

    sharing, slow = marked("pipeline"), marked("long", "slow")

    def rank(item: pytest.Item) -> int:
        if item.path.name == "test_pipeline_smoke.py":
            return 0
        return 2 if item.path in sharing else 1 if item.path in slow else 3

    items.sort(key=rank)


def python(
    *arguments: str, cwd: Path, timeout: float | None = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A Python process of its own, finished; output captured as text."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def paint_tiny_world(folder: Path, timeout: float | None = 300) -> None:
    """params.yaml, data/ and build/ after the stages that all studies share."""
    (folder / "params.yaml").write_text(TINY)
    done = python("-c", STAGES, cwd=folder, timeout=timeout)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def run_python():
    """``run_python(*arguments, cwd=...)``, see ``python``."""
    return python


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``paint_tiny_world`` makes it; not to be written to but for .scratch and build/adapters."""
    folder = tmp_path_factory.mktemp("tiny")
    paint_tiny_world(folder)
    return folder


@pytest.fixture(scope="session")
def art_adapters(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``art_finetuning`` trains in the tiny world: ``mixed`` and ``full`` from both seeds, once for all tests."""
    import torch

    from atelier import params
    from atelier.studies.art_finetuning import train

    workspace, threads = linked(tmp_path_factory.mktemp("trained"), tiny_world), torch.get_num_threads()
    torch.set_num_threads(1)
    config = params.load(workspace.params_file)
    for variant in ("mixed", "full"):
        for seed in config.protocol.training_seeds:
            train.main(config, workspace, variant, str(seed))
    torch.set_num_threads(threads)
    return workspace.adapters


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks this small are slower on two: the threads wait for each other, all the more on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def workspace(tiny_world: Path, one_thread: None, tmp_path: Path) -> Workspace:
    """Data and shared outputs of the tiny world; what the test writes is its alone."""
    return linked(tmp_path / "workspace", tiny_world)


@pytest.fixture(scope="session")
def painted_photographs():
    """Sixteen painted photographs at 64 px, float32 (16, 3, 64, 64) in [-1, 1]."""
    import torch

    from atelier.data.images import to_model_range
    from atelier.data.painter import paint_corpus

    pixels, _, _ = paint_corpus(works=0, photographs=16, seed=5, size=64, workers=1)
    return to_model_range(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous())
