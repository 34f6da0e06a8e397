"""Search for good values of settings: the space, the study, the folds. What is tuned is the caller's business."""

from train.tuning.config import TuneConfig as TuneConfig
