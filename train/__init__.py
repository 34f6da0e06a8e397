"""Data, models, augmentation, losses, metrics and fitting: teacher and student alike."""
