"""The LSTM in float64 NumPy: its four gates apart, its gradients by hand; slow, plain, true."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(weights, x, h, c, mask=None, reset=None):
    """Returns outputs [T, B, H], the final (h, c) and a tape for `lstm_gradients`.

    `weights` maps each of i, f, g, o to (W [D, H], U [H, H], b [H]).
    """
    tape, outputs = [], []
    for t in range(len(x)):
        if reset is not None:
            fresh = reset[t][:, None]
            h, c = np.where(fresh, 0, h), np.where(fresh, 0, c)
        a = {k: x[t] @ W + h @ U + b for k, (W, U, b) in weights.items()}
        i, f, o = sigmoid(a["i"]), sigmoid(a["f"]), sigmoid(a["o"])
        g = np.tanh(a["g"])
        c_new = f * c + i * g
        h_new = o * np.tanh(c_new)
        keep = np.ones((x.shape[1], 1), bool) if mask is None else mask[t][:, None]
        tape.append((x[t], h, c, i, f, g, o, c_new, keep))
        h, c = np.where(keep, h_new, h), np.where(keep, c_new, c)
        outputs.append(np.where(keep, h, 0))
    return np.array(outputs).reshape(len(x), *h.shape), (h, c), tape


def lstm_gradients(weights, tape, d_outputs, d_h, d_c, reset=None):
    """Returns gradients by gate (dW, dU, db), dx [T, B, D] and (dh, dc) of the starting state."""
    grads = {k: [np.zeros_like(w) for w in ws] for k, ws in weights.items()}
    d_x = np.zeros((len(tape), *tape[0][0].shape))
    for t in reversed(range(len(tape))):
        x, h, c, i, f, g, o, c_new, keep = tape[t]
        new_h, new_c = keep * (d_h + d_outputs[t]), keep * d_c
        d_h, d_c = (1 - keep) * d_h, (1 - keep) * d_c
        tanh_c = np.tanh(c_new)
        through_c = new_c + new_h * o * (1 - tanh_c**2)
        d_a = {
            "i": through_c * g * i * (1 - i),
            "f": through_c * c * f * (1 - f),
            "g": through_c * i * (1 - g**2),
            "o": new_h * tanh_c * o * (1 - o),
        }
        d_c = d_c + through_c * f
        for k, (W, U, _) in weights.items():
            grads[k][0] += x.T @ d_a[k]
            grads[k][1] += h.T @ d_a[k]
            grads[k][2] += d_a[k].sum(0)
            d_x[t] += d_a[k] @ W.T
            d_h = d_h + d_a[k] @ U.T
        if reset is not None:
            kept = ~reset[t][:, None]
            d_h, d_c = kept * d_h, kept * d_c
    return grads, d_x, (d_h, d_c)
