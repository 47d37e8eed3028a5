"""A patch discriminator between real and reconstructed pictures (Isola et al. 2017)."""

from torch import Tensor, nn

SLOPE = 0.2  # of the leaky rectifier


class PatchDiscriminator(nn.Module):
    """(n, 3, h, w) in [-1, 1] -> scores (n, 1, h/4, w/4), each mostly of a patch of about 26 pixels."""

    def __init__(self, channels: tuple[int, int, int] = (64, 128, 128)) -> None:
        super().__init__()
        one, two, three = channels
        self.layers = nn.Sequential(
            nn.Conv2d(3, one, 4, 2, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(one, two, 4, 2, 1),
            nn.GroupNorm(8, two),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(two, three, 3, 1, 1),
            nn.GroupNorm(8, three),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(three, 1, 3, 1, 1),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layers(pictures)
