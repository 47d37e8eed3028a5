"""The decoder's training: two losses in one loop, each reaching one network only, weighed as VQGAN weighs them."""

import pytest
import torch
from torch import Tensor

from atelier.models import base
from atelier.models.discriminator import PatchDiscriminator
from atelier.models.latents import encode_pictures
from atelier.training import decoder
from atelier.training.autoencoder import reconstruction_loss
from atelier.training.loop import Task
from atelier.training.order import Turn

pytestmark = pytest.mark.usefixtures("one_thread")
BATCH = [Turn(0, 0), Turn(3, 1), Turn(2, 0)]
WEIGHTS = (0.5, 0.3)


def squared(made: Tensor, target: Tensor) -> Tensor:
    return (made - target).square().mean((1, 2, 3))


@pytest.fixture
def parts() -> tuple:
    vae = base.build_autoencoder("tiny", 64, seed=2)
    pictures = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    return vae, PatchDiscriminator((8, 8, 8)), encode_pictures(vae, pictures), pictures


def task_of(parts: tuple, weights: tuple[float, float] = WEIGHTS) -> Task:
    vae, critic, latents, pictures = parts
    names = [f"work-{i}" for i in range(4)]
    return decoder.task(vae, critic, squared, latents, pictures, names, weights, 5, torch.device("cpu"))


def gradients(task: Task) -> dict[str, Tensor | None]:
    torch.stack(list(task.losses(BATCH).values())).sum().backward()
    return {name: parameter.grad for name, parameter in task.trainable.items()}


def test_only_the_decoder_and_the_discriminator_learn(parts: tuple) -> None:
    task = task_of(parts)
    assert {name.split(".")[0] for name in task.trainable} == {"decoder", "post_quant_conv", "discriminator"}
    found = gradients(task)
    assert all(grad is not None and grad.abs().sum() > 0 for name, grad in found.items() if "bias" not in name)
    assert not any(parameter.requires_grad for parameter in parts[0].encoder.parameters())
    assert not any(parameter.requires_grad for parameter in parts[0].quant_conv.parameters())


def test_the_decoders_gradient_is_that_of_the_weighed_sum(parts: tuple) -> None:
    """Against the plain form: three backward passes through everything."""
    vae, critic, latents, pictures = parts
    task = task_of(parts)
    found = {name: grad for name, grad in gradients(task).items() if not name.startswith("discriminator")}
    from atelier.data.images import to_model_range
    from atelier.seeds import torch_generator

    chosen = [turn.sample for turn in BATCH]
    noise = [
        torch.randn(latents.std.shape[1:], generator=torch_generator(5, "posterior", f"work-{at}", epoch))
        for at, epoch in BATCH
    ]
    made = vae.decode(latents.mean[chosen] + latents.std[chosen] * torch.stack(noise)).sample
    target = to_model_range(pictures[chosen])
    wanted = reconstruction_loss(made, target) + WEIGHTS[0] * squared(made, target).mean()
    deceit = -critic(made).mean()
    last = vae.decoder.conv_out.weight
    one, two = (torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (wanted, deceit))
    total = wanted + WEIGHTS[1] * one / (two + 1e-4) * deceit
    names = list(found)
    expected = torch.autograd.grad(total, [task.trainable[name] for name in names])
    for name, grad in zip(names, expected, strict=True):
        assert found[name] is not None
        torch.testing.assert_close(found[name], grad, rtol=2e-4, atol=2e-6, msg=name)


def test_the_discriminators_gradient_is_the_hinge_loss_alone(parts: tuple) -> None:
    one = {name: grad for name, grad in gradients(task_of(parts)).items() if name.startswith("discriminator")}
    for parameter in (*parts[0].parameters(), *parts[1].parameters()):
        parameter.grad = None
    two = gradients(task_of(parts, weights=(0.0, 0.0)))
    assert all(torch.equal(grad, two[name]) for name, grad in one.items() if grad is not None and two[name] is not None)


def test_terms_are_reported_and_the_carrier_is_zero(parts: tuple) -> None:
    terms = task_of(parts).losses(BATCH)
    assert list(terms) == ["reconstruction", "perceptual", "deceit", "decoder", "discriminator"]
    assert float(terms["decoder"]) == 0.0
    assert float(terms["discriminator"]) == pytest.approx(1.0, abs=0.5)


def test_hinge_loss_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 1.0])
    assert float(decoder.hinge_loss(real, fake)) == pytest.approx(((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3) / 2)


def test_the_adaptive_weight_is_a_ratio_of_norms_and_bounded() -> None:
    assert float(decoder.adaptive_weight(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0]))) == pytest.approx(
        2.5, 1e-3
    )
    assert float(decoder.adaptive_weight(torch.tensor([3e9]), torch.tensor([0.0]))) == 1e4


def test_a_score_is_of_a_patch() -> None:
    """A change at one corner moves no score at the other."""
    torch.manual_seed(0)
    critic = PatchDiscriminator((8, 8, 8))
    for module in critic.modules():
        if isinstance(module, torch.nn.GroupNorm):  # it sees the whole map; without it the receptive field is 22 px
            module.forward = lambda x: x  # type: ignore[method-assign]
    x = torch.randn(1, 3, 64, 64)
    y = x.clone()
    y[..., :4, :4] += 1
    change = (critic(x) - critic(y)).abs()[0, 0]
    assert change.shape == (16, 16)
    assert change[0, 0] > 0
    assert change[6:, :].max() == change[:, 6:].max() == 0
