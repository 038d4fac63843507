"""The former place of `weighted_auc`."""

from papercommons.metrics.roc import weighted_auc

__all__ = ["weighted_auc"]
