"""Writes tiny models with Keras, for tests to read: `python -m tests.checkpoints.keras_models FOLDER`.

Beside each file is an .npz of the model's trainable weights, which is what should be read.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import h5py
import keras
import numpy as np
from keras import layers
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

# Keras has no type information, and its classes can be derived from only untyped.
Model: Any = keras.Model


class Attending(Model):
    """A model of one's own: layers under names of its own, in lists, and a metric among its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = layers.Embedding(7, 4)
        self.bn = layers.BatchNormalization()
        self.between = layers.BatchNormalization(scale=False)
        self.attend = layers.MultiHeadAttention(2, 4)
        self.norm = layers.LayerNormalization()
        self.blocks = [layers.Dense(4), layers.Dense(4)]
        self.loss_tracker = keras.metrics.Mean(name="loss")

    def call(self, tokens: Any) -> Any:
        hidden = self.between(self.bn(self.embed(tokens)))
        hidden = self.norm(self.attend(hidden, hidden))
        for block in self.blocks:
            hidden = block(hidden)
        return hidden


def functional() -> Any:
    image = keras.Input((8, 8, 3))
    hidden = layers.Conv2D(4, 3, name="stem")(image)
    hidden = layers.BatchNormalization()(hidden)
    hidden = layers.BatchNormalization(scale=False, center=False, name="my_norm")(hidden)
    hidden = layers.BatchNormalization(renorm=True)(hidden)
    hidden = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(hidden))
    hidden = keras.Sequential([layers.Dense(5), layers.LayerNormalization()], name="inner")(hidden)
    model = keras.Model(image, layers.Dense(2)(hidden))
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.zeros((4, 8, 8, 3)), np.zeros((4, 2)), verbose=0)
    return model


def randomise(model: Any) -> None:
    draws = np.random.default_rng(0)
    model.set_weights([draws.standard_normal(weight.shape).astype(weight.dtype) for weight in model.get_weights()])


def save_truth(model: Any, file: Path) -> None:
    arrays = [keras.ops.convert_to_numpy(keras.ops.cast(each, "float32")) for each in model.trainable_weights]
    np.savez(f"{file}.npz", *arrays)


def main(folder: Path) -> None:
    model = functional()
    randomise(model)
    for name in ("functional.weights.h5", "functional.keras", "functional.h5", "weights_of_keras_2.h5"):
        save_truth(model, folder / name)
    model.save_weights(folder / "functional.weights.h5")
    model.save(folder / "functional.keras")
    model.save(folder / "functional.h5")
    with h5py.File(folder / "weights_of_keras_2.h5", "w") as file:
        save_weights_to_hdf5_group(file, model)

    own = Attending()
    own(np.zeros((2, 3), dtype="int32"))
    own.loss_tracker.update_state(3.0)
    randomise(own)
    own.save_weights(folder / "own.weights.h5")
    save_truth(own, folder / "own.weights.h5")

    half = keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype="bfloat16")])
    half.save_weights(folder / "half.weights.h5")
    save_truth(half, folder / "half.weights.h5")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))
