"""Gaussian process regression on a few dozen to a few hundred architectures, columns in groups.

``k(a, b) = sum over groups g of  l_g <a_g, b_g> / D_g  +  m_g Matern_3/2(|a_g - b_g| / (s_g sqrt(D_g)))``, plus noise.
One length a column would be more numbers than there are labels. The numbers are the mode of their posterior under wide
log-normal priors, so that ten labels cannot decide that there is no noise.
Suffixes: N training rows, M others, D columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # parts of it are imported when they are used: slow, and a scoring job does without

#: Prior of the log of each number: mean and standard deviation. Targets have variance 1.
LINEAR, MATERN, LENGTH, NOISE = (np.log(0.3), 1.5), (np.log(0.3), 1.5), (0.0, 0.7), (np.log(0.2), 1.5)
JITTER = 1e-5


def squared_distance(a_MD: np.ndarray, b_ND: np.ndarray) -> np.ndarray:
    square = (a_MD**2).sum(1)[:, None] + (b_ND**2).sum(1) - 2 * a_MD @ b_ND.T
    return np.maximum(square, 0)


def _parts(group: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inner products and distances, per column: all that a kernel needs of the columns."""
    columns = train.shape[1]
    return group @ train.T / columns, np.sqrt(squared_distance(group, train) / columns)


def _kernels(theta: np.ndarray, part: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the linear kernel, the Matern kernel and d Matern / d s of one group with logs (l, m, s)."""
    inner, distance = part
    r = np.sqrt(3) * distance / np.exp(theta[2])
    decay = np.exp(theta[1] - r)
    return np.exp(theta[0]) * inner, (1 + r) * decay, r**2 * decay


@dataclass(frozen=True)
class GaussianProcess:
    """A fitted process; see :func:`fit`."""

    train: tuple[np.ndarray, ...]  # (N, D) a group
    theta: np.ndarray  # logs: (l, m, s) a group, then the noise variance
    weight_N: np.ndarray
    mean: float
    scale: float

    def predict(self, groups: Sequence[np.ndarray]) -> np.ndarray:
        """Posterior mean, shape (M,), for one (M, D) array a group."""
        return self.mean + self.scale * (self._kernel(groups) @ self.weight_N)

    def posterior(self, groups: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean and standard deviation, without the noise of a target, each of shape (M,)."""
        kernel_MN = self._kernel(groups)
        prior_M = sum(
            np.exp(self.theta[3 * i]) * (group**2).mean(axis=1) + np.exp(self.theta[3 * i + 1])
            for i, group in enumerate(groups)
        )
        noise = (np.exp(self.theta[-1]) + JITTER) * np.eye(len(self.weight_N))
        factor = scipy.linalg.cholesky(self._kernel(self.train) + noise, lower=True)
        known_NM = scipy.linalg.solve_triangular(factor, kernel_MN.T, lower=True)
        variance_M = np.maximum(prior_M - (known_NM**2).sum(axis=0), 0)
        return self.mean + self.scale * (kernel_MN @ self.weight_N), self.scale * np.sqrt(variance_M)

    def _kernel(self, groups: Sequence[np.ndarray]) -> np.ndarray:
        kernel_MN = 0.0
        for i, (group, train) in enumerate(zip(groups, self.train, strict=True)):
            linear, matern, _ = _kernels(self.theta[3 * i : 3 * i + 3], _parts(group, train))
            kernel_MN = kernel_MN + linear + matern
        return kernel_MN


def fit(groups: Sequence[np.ndarray], target_N: np.ndarray) -> GaussianProcess:
    """Fit to targets; `groups` holds an (N, D) array for each group, columns of about unit variance."""
    parts = [_parts(group, group) for group in groups]
    mean, scale = float(target_N.mean()), float(target_N.std()) or 1.0
    t = (target_N - mean) / scale
    identity = np.eye(len(t))
    prior, spread = np.array([*[LINEAR, MATERN, LENGTH] * len(groups), NOISE]).T

    def covariance(theta: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        total, slopes = (np.exp(theta[-1]) + JITTER) * identity, []
        for i, part in enumerate(parts):
            linear, matern, by_length = _kernels(theta[3 * i : 3 * i + 3], part)
            total = total + linear + matern
            slopes += [linear, matern, by_length]
        return total, slopes

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Negative log posterior and its gradient."""
        total, slopes = covariance(theta)
        factor = scipy.linalg.cho_factor(total, lower=True, check_finite=False)
        a = scipy.linalg.cho_solve(factor, t, check_finite=False)
        residual = scipy.linalg.cho_solve(factor, identity, check_finite=False) - np.outer(a, a)
        step = (theta - prior) / spread
        value = 0.5 * t @ a + np.log(np.diag(factor[0])).sum() + 0.5 * step @ step
        gradient = [0.5 * np.vdot(residual, slope) for slope in slopes]
        gradient.append(0.5 * np.exp(theta[-1]) * np.trace(residual))
        return value, np.array(gradient) + step / spread

    bounds = list(zip(prior - 6 * spread, prior + 6 * spread, strict=True))
    theta = scipy.optimize.minimize(
        objective, prior, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60}
    ).x
    weight = scipy.linalg.cho_solve(scipy.linalg.cho_factor(covariance(theta)[0], lower=True), t)
    return GaussianProcess(tuple(groups), theta, weight, mean, scale)
