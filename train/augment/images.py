"""Image augmentation on whole batches."""

from __future__ import annotations

import numpy as np

from serve.errors import UserError
from train.augment import colours, geometry
from train.augment.boxes import draw_boxes
from train.augment.draws import ItemDraws, Stream
from train.augment.erasing import erase
from train.augment.image_config import ImageAugment
from train.augment.randaugment import randaugment

__all__ = ["ImageAugment", "augment_images", "check_channels", "recolours"]

_CHUNK_BYTES = 2**19  # of images that are changed at once: what is made on the way stays small, and in the cache
_CROP = (Stream.CROP_AREA, Stream.CROP_ASPECT, Stream.CROP_TOP, Stream.CROP_LEFT)
_COLOURS = ("saturation", "hue", "grayscale")
_ERASE = (Stream.ERASE_AREA, Stream.ERASE_ASPECT, Stream.ERASE_TOP, Stream.ERASE_LEFT)


def augment_images(images: np.ndarray, config: ImageAugment, seed: int, epoch: int, index: np.ndarray) -> np.ndarray:
    """A new view of `images` uint8 [N, H, W, C], whose rows are the items `index` int64 [N] of the training split.

    It depends on the image, the config and (seed, epoch, index) alone, not on what else is in the batch. Items are not
    mixed here: `train.augment.mixing`. Raises UserError for what cannot be done to images of C channels.
    """
    if all(getattr(config, name) == field.default for name, field in ImageAugment.model_fields.items()):
        return images
    check_channels(config, images.shape[-1])
    step = max(1, _CHUNK_BYTES // max(images[:1].nbytes, 1))
    if len(images) <= step:
        return _change(images, config, ItemDraws(seed, epoch, index))
    changed = np.empty_like(images)
    for at in range(0, len(images), step):
        rows = slice(at, at + step)
        changed[rows] = _change(images[rows], config, ItemDraws(seed, epoch, index[rows]))
    return changed


def recolours(config: ImageAugment) -> bool:
    """Whether colours are changed, which grey images have none of."""
    return any(getattr(config, name) for name in _COLOURS)


def check_channels(config: ImageAugment, channels: int) -> None:
    """Raise UserError where colours of grey images are to be changed. Brightness and contrast mean the same on them."""
    for name in _COLOURS:
        if getattr(config, name) and channels == 1:
            raise UserError(
                f"fit.augment.{name} changes colours, and the model sees these images in grey",
                f"leave {name} out; brightness, contrast and noise work on grey images too",
            )


def _change(images: np.ndarray, config: ImageAugment, draws: ItemDraws) -> np.ndarray:
    images = _moved(images, config, draws)
    if config.randaugment:
        rows = np.flatnonzero(draws.happens(Stream.RANDAUGMENT, config.probability.randaugment))
        seeds = draws.between(Stream.RANDAUGMENT_SEED, 0, 2**53).astype(np.int64)
        images = randaugment(images, config.randaugment, config.randaugment_magnitude, seeds, rows)
    return _covered(_coloured(images, config, draws), config, draws)


def _moved(images: np.ndarray, config: ImageAugment, draws: ItemDraws) -> np.ndarray:
    """With things in other places, by at most three interpolations."""
    often = config.probability
    if config.crop:
        boxes = draw_boxes(draws, _CROP, config.crop, config.crop_aspect, *images.shape[1:3])
        images = geometry.crop(images, boxes, np.flatnonzero(draws.happens(Stream.CROP, often.crop)))
    if config.shift:
        span = 2 * config.shift + 1
        dy = (draws.uniform(Stream.SHIFT_Y) * span).astype(np.int64)
        dx = (draws.uniform(Stream.SHIFT_X) * span).astype(np.int64)
        images = geometry.shift(images, dy, dx, config.shift)
    if config.flip:
        images = geometry.flip(images, draws.happens(Stream.FLIP, often.flip))
    if config.flip_vertical:
        images = geometry.flip(images, draws.happens(Stream.FLIP_VERTICAL, often.flip_vertical), vertical=True)
    if config.rotate or config.scale or config.elastic:
        images = _warped(images, config, draws)
    return images


def _warped(images: np.ndarray, config: ImageAugment, draws: ItemDraws) -> np.ndarray:
    """Turned, zoomed and bent."""
    often = config.probability
    degrees = draws.between(Stream.ROTATE_BY, -config.rotate, config.rotate)
    zoom = draws.between(Stream.SCALE_BY, *(config.scale or (1.0, 1.0)))
    moved = None
    if config.elastic:
        rows = np.flatnonzero(draws.happens(Stream.ELASTIC, often.elastic))
        height, width = images.shape[1:3]
        moved = geometry.elastic_field(draws, rows, config.elastic, config.elastic_sigma, (height, width))
    return geometry.warp(
        images,
        np.where(draws.happens(Stream.ROTATE, often.rotate), degrees, 0.0),
        np.where(draws.happens(Stream.SCALE, often.scale), zoom, 1.0),
        moved,
    )


def _coloured(images: np.ndarray, config: ImageAugment, draws: ItemDraws) -> np.ndarray:
    """In another light and with other colours."""
    often = config.probability
    for strength, change, stream, by, probability in (
        (config.brightness, colours.brightness, Stream.BRIGHTNESS, Stream.BRIGHTNESS_BY, often.brightness),
        (config.contrast, colours.contrast, Stream.CONTRAST, Stream.CONTRAST_BY, often.contrast),
        (config.saturation, colours.saturation, Stream.SATURATION, Stream.SATURATION_BY, often.saturation),
    ):
        if strength:
            factor = draws.between(by, 1 - strength, 1 + strength)
            images = change(images, np.where(draws.happens(stream, probability), factor, 1.0))
    if config.hue:
        turns = draws.between(Stream.HUE_BY, -config.hue, config.hue)
        images = colours.hue(images, np.where(draws.happens(Stream.HUE, often.hue), turns, 0.0))
    if config.grayscale:
        images = colours.grayscale(images, draws.happens(Stream.GRAYSCALE, config.grayscale))
    return images


def _covered(images: np.ndarray, config: ImageAugment, draws: ItemDraws) -> np.ndarray:
    """Blurred, noisy, and with a part hidden."""
    often = config.probability
    if config.blur:
        sigma = draws.between(Stream.BLUR_BY, min(colours.LEAST_SIGMA, config.blur), config.blur)
        images = colours.blur(images, np.where(draws.happens(Stream.BLUR, often.blur), sigma, 0.0))
    if config.noise:
        images = colours.noise(images, config.noise, draws.happens(Stream.NOISE, often.noise), draws)
    if config.erase:
        boxes = draw_boxes(draws, _ERASE, config.erase_area, config.erase_aspect, *images.shape[1:3])
        rows = np.flatnonzero(draws.happens(Stream.ERASE, config.erase))
        images = erase(images, boxes, config.erase_with, draws, rows)
    return images
