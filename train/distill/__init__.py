"""How a student learns from its teacher: from its answers (`logits`) and from what happens inside it (`encoders`)."""

from train.distill.config import DistillConfig, FeatureConfig

__all__ = ["DistillConfig", "FeatureConfig"]
