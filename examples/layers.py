"""The layers and the optimiser of the examples that learn, out of tconv and NumPy alone.

A convolution and a transposed convolution are each other's gradient, so a few calls are enough to
train a network of both.  All arrays are NumPy's.
"""

import numpy as np

import tconv


class TransposedConv:
    """A transposed convolution and its bias, with or without a ReLU."""

    def __init__(self, weight, stride=1, padding=0, relu=False):
        self.weight = np.asarray(weight, np.float32)
        self.bias = np.zeros(self.weight.shape[1], np.float32)
        self.geometry = {"stride": stride, "padding": padding}
        self.activation = "relu" if relu else None

    def forward(self, x):
        """Return the layer's output, and keep what its gradients need."""
        self.x = x
        self.y = tconv.transposed_conv2d(
            x, self.weight, self.bias, **self.geometry, activation=self.activation
        )
        return self.y

    def backward(self, grad):
        """Keep the gradients of the weight and the bias, and return that of the input."""
        if self.activation:
            grad = grad * (self.y > 0)
        grad_x, *self.grads = tconv.transposed_conv2d_backward(
            grad, self.x, self.weight, **self.geometry
        )
        return grad_x

    def parameters(self):
        """Return the arrays that are learned."""
        return [self.weight, self.bias]


class Conv:
    """A convolution and its bias, with a ReLU."""

    def __init__(self, weight, stride=1, padding=0):
        self.weight = np.asarray(weight, np.float32)
        self.bias = np.zeros(self.weight.shape[0], np.float32)
        self.geometry = {"stride": stride, "padding": padding}

    def forward(self, x):
        """Return the layer's output, and keep what its gradients need."""
        self.x = x
        self.y = np.maximum(tconv.conv2d(x, self.weight, self.bias, **self.geometry), 0)
        return self.y

    def backward(self, grad):
        """Keep the gradients of the weight and the bias, and return that of the input.

        They are those of the transposed convolution that leads back from the output to the input:
        its input is our gradient, and the gradient of its output is our input.
        """
        grad = grad * (self.y > 0)
        back = self.geometry | {"output_size": self.x.shape[2:]}
        _, grad_weight, _ = tconv.transposed_conv2d_backward(
            self.x, grad, self.weight, **back, output_mask=(False, True, False)
        )
        self.grads = [grad_weight, grad.sum(axis=(0, 2, 3))]
        return tconv.transposed_conv2d(grad, self.weight, **back)

    def parameters(self):
        """Return the arrays that are learned."""
        return [self.weight, self.bias]


class Adam:
    """Kingma and Ba's optimiser (2015), with a learning rate that falls to zero along a cosine."""

    def __init__(self, layers, rate, steps):
        self.layers, self.rate, self.steps, self.count = layers, rate, steps, 0
        self.means = [np.zeros_like(p) for layer in layers for p in layer.parameters()]
        self.squares = [np.zeros_like(p) for p in self.means]

    def step(self):
        """Move every parameter against its gradient, by about the learning rate."""
        self.count += 1
        rate = self.rate * (1 + np.cos(np.pi * self.count / self.steps)) / 2
        rate *= np.sqrt(1 - 0.999**self.count) / (1 - 0.9**self.count)
        parameters = [p for layer in self.layers for p in layer.parameters()]
        grads = [g for layer in self.layers for g in layer.grads]
        for p, g, mean, square in zip(parameters, grads, self.means, self.squares, strict=True):
            mean += 0.1 * (g - mean)
            square += 0.001 * (g * g - square)
            p -= np.float32(rate) * mean / (np.sqrt(square) + 1e-8)


def he_normal(rng, *shape):
    """Return random weights of a convolution that keeps the size of signals through a ReLU."""
    return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
