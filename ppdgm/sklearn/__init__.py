"""ppdgm's programs as estimators of scikit-learn: in pipelines, grid searches and cross-validation."""

from ppdgm.sklearn.density import DensityEstimator as DensityEstimator
from ppdgm.sklearn.imputer import Imputer as Imputer
from ppdgm.sklearn.transformer import VAETransformer as VAETransformer

__all__ = ["DensityEstimator", "Imputer", "VAETransformer"]
