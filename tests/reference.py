"""The oracle: Lookahead and its inner optimizers in plain NumPy, one array at a time, written from the papers.

Nothing here is shared with the code under test. An optimizer has one method, `step(params, grads) -> params`,
and keeps its state in itself:

    optimizer = Lookahead(Adam(1e-3), sync_period=5, slow_step_size=0.8, params=w)
    w = optimizer.step(w, gradient(w))
    optimizer.slow          # the slow weights

A tree of parameters is one such optimizer per leaf: nothing here looks at more than one array.
"""

import copy
import math

import numpy as np


class Sgd:
    """p <- p - lr * b with b <- momentum * b + g, and Nesterov's look at momentum * b + g; L2 weight decay."""

    def __init__(self, learning_rate, momentum=0.0, nesterov=False, weight_decay=0.0):
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        self.trace = 0.0

    def step(self, params, grads):
        grads = grads + self.weight_decay * params
        self.trace = self.momentum * self.trace + grads
        direction = grads + self.momentum * self.trace if self.nesterov else self.trace
        return params - self.learning_rate * direction


class Adam:
    """Adam (Kingma, Ba 2015, algorithm 1), with L2 weight decay."""

    def __init__(self, learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
        self.learning_rate = learning_rate
        self.b1, self.b2, self.eps = b1, b2, eps
        self.weight_decay = weight_decay
        self.count, self.mu, self.nu = 0, 0.0, 0.0

    def step(self, params, grads):
        grads = grads + self.weight_decay * params
        self.count += 1
        self.mu = self.b1 * self.mu + (1 - self.b1) * grads
        self.nu = self.b2 * self.nu + (1 - self.b2) * grads**2
        mu_hat = self.mu / (1 - self.b1**self.count)
        nu_hat = self.nu / (1 - self.b2**self.count)
        return params - self.learning_rate * mu_hat / (np.sqrt(nu_hat) + self.eps)


class RAdam:
    """RAdam (Liu et al. 2020, algorithm 2), with decoupled weight decay.

    The first steps, whose variance is not tractable, are momentum steps along the corrected first moment.
    `eps_on="corrected"` adds eps to the root of the bias-corrected second moment, as optax does; `eps_on="raw"`
    to the root of the raw one, as torch and the report do.
    """

    def __init__(self, learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, eps_on="corrected"):
        self.learning_rate = learning_rate
        self.b1, self.b2, self.eps = b1, b2, eps
        self.weight_decay = weight_decay
        self.eps_on = eps_on
        self.count, self.mu, self.nu = 0, 0.0, 0.0

    def step(self, params, grads):
        self.count += 1
        t = self.count
        self.mu = self.b1 * self.mu + (1 - self.b1) * grads
        self.nu = self.b2 * self.nu + (1 - self.b2) * grads**2
        mu_hat = self.mu / (1 - self.b1**t)
        params = params * (1 - self.learning_rate * self.weight_decay)
        rho_inf = 2 / (1 - self.b2) - 1
        rho = rho_inf - 2 * t * self.b2**t / (1 - self.b2**t)
        if rho <= 5:
            return params - self.learning_rate * mu_hat
        rectification = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
        correction = math.sqrt(1 - self.b2**t)
        if self.eps_on == "corrected":
            denominator = np.sqrt(self.nu) / correction + self.eps
        else:
            denominator = (np.sqrt(self.nu) + self.eps) / correction
        return params - self.learning_rate * rectification * mu_hat / denominator


class Lookahead:
    """Lookahead (Zhang et al. 2019, algorithm 1) around one of the above.

    `at_sync` names what becomes of the inner optimizer's moments: "maintain", "reset" to zero (with the count of
    their bias correction), or "pullback" (interpolated with their values after the last sync). `outer`, an optimizer
    of this file, takes the place of `slow_step_size`: it steps the slow weights along the pseudo-gradient slow - fast.
    """

    MOMENTS = ("trace", "mu", "nu")

    def __init__(self, inner, sync_period, slow_step_size=0.8, *, params, at_sync="maintain", outer=None):
        self.inner = inner
        self.sync_period = sync_period
        self.slow_step_size = slow_step_size
        self.at_sync = at_sync
        self.outer = outer
        self.slow = np.array(params, copy=True)
        self.steps = 0
        self.pulled = dict.fromkeys(self.MOMENTS, 0.0)

    def step(self, params, grads):
        fast = self.inner.step(params, grads)
        self.steps += 1
        if self.steps < self.sync_period:
            return fast
        self.steps = 0
        if self.outer is None:
            self.slow = self.slow + self.slow_step_size * (fast - self.slow)
        else:
            self.slow = self.outer.step(self.slow, self.slow - fast)
        if self.at_sync == "reset":
            self.inner.count = 0
        for name in self.MOMENTS:
            if not hasattr(self.inner, name):
                continue
            moment = getattr(self.inner, name)
            if self.at_sync == "reset":
                moment = 0.0
            elif self.at_sync == "pullback":
                moment = self.pulled[name] + self.slow_step_size * (moment - self.pulled[name])
                self.pulled[name] = copy.copy(moment)
            setattr(self.inner, name, moment)
        return self.slow.copy()


class Snoo:
    """Every `sync_period` steps: d = s - f, b <- m b + d, s <- s - lr (d + m b). DiLoCo with one worker is the same."""

    def __init__(self, inner, sync_period, learning_rate, momentum, *, params):
        self.inner, self.sync_period = inner, sync_period
        self.learning_rate, self.momentum = learning_rate, momentum
        self.slow, self.buffer, self.steps = np.array(params, copy=True), np.zeros_like(params), 0

    def step(self, params, grads):
        fast = self.inner.step(params, grads)
        self.steps += 1
        if self.steps % self.sync_period:
            return fast
        difference = self.slow - fast
        self.buffer = self.momentum * self.buffer + difference
        self.slow = self.slow - self.learning_rate * (difference + self.momentum * self.buffer)
        return self.slow.copy()


class PrimalAveraging:
    """GPA: gradients at y = mu_y x + (1 - mu_y) z; `inner` steps z; x <- mu_x x + (1 - mu_x) z. `params` are y."""

    def __init__(self, inner, mu_x, mu_y, *, params):
        self.inner, self.mu_x, self.mu_y = inner, mu_x, mu_y
        self.slow = np.array(params, copy=True)  # x
        self.z = np.array(params, copy=True)

    def step(self, params, grads):
        del params  # y, which follows from x and z
        self.z = self.inner.step(self.z, grads)
        self.slow = self.mu_x * self.slow + (1 - self.mu_x) * self.z
        return self.mu_y * self.slow + (1 - self.mu_y) * self.z


def trajectory(optimizer, params, gradient, steps):
    """The weights after each of `steps` steps, `gradient(params, step)` giving the gradients.

    Returns:
        Arrays of shape (steps, *params.shape): the live weights and the slow ones (the live ones again where the
        optimizer has none).
    """
    live, slow = [], []
    for step in range(steps):
        params = optimizer.step(params, gradient(params, step))
        live.append(params)
        slow.append(getattr(optimizer, "slow", params))
    return np.stack(live), np.stack(slow)
