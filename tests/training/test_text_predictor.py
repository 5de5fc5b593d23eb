"""Predictions of texts: scored, saved, and written on symbol by symbol."""

import functools

import jax
import numpy as np
import pytest

import lstm_jax as lj

pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_a_text_is_predicted_and_scored_as_it_is_evaluated_and_saved(tmp_path):
    task = lj.tasks.LanguageModel(lj.data.Text("the cat sat on the mat. " * 20), window=8)
    model = lj.nn.SequenceSpec(lj.cells.RNN(4))
    result = lj.fit(task, model, steps=2, batch_size=4, seeds=2, progress=False)
    bits = result.evaluate("test").loss / np.log(2)
    for m, one in enumerate(bits):
        params, trials = jax.tree.map(lambda leaf, m=m: leaf[[m]], (result.params, result.trials))
        scores = lj.Predictor(task, result.model, params, trials).evaluate("test")
        np.testing.assert_allclose(scores["bits per character"], one, rtol=1e-5)
    both = result.ensemble()
    both.save(tmp_path / "model")
    loaded, text = lj.load(tmp_path / "model"), "that seat"
    p = loaded.predict(text, probabilities=True)
    np.testing.assert_array_equal(p, both.predict(text, probabilities=True))
    assert "".join(loaded.predict(text)) == task.vocabulary.decode(p.argmax(-1))
    np.testing.assert_allclose(loaded.predict(text[:5], probabilities=True), p[:5], rtol=1e-5)
    with pytest.raises(ValueError, match="x must have rows"):
        loaded.predict("")
    assert loaded.generate("the", 9, seed=3) == both.generate("the", 9, seed=3)
    assert loaded.evaluate("the seat is") == both.evaluate("the seat is")


def test_a_text_that_tests_is_scored_as_any_other_text():
    one, other = writer(), "the mat sat. " * 3
    text = lj.data.Text("the cat sat on the mat. " * 20, test=other)
    task = lj.tasks.LanguageModel(text, window=8)
    tested = lj.Predictor(task, one.model, one.params, one.trials)
    assert tested.evaluate("test") == one.evaluate(other)
    with pytest.raises(TypeError, match="text must be a string for level='char', got Text"):
        one.evaluate(text)


@functools.cache
def writer(members=2):
    """Untrained networks whose next symbols are far from equally probable, and their task."""
    task = lj.tasks.LanguageModel("the cat sat on the mat. " * 20, window=8)
    model = lj.nn.SequenceSpec(lj.cells.RNN(6)).sized(task)
    trials = lj.make_trials(seed=list(range(members)), init_scale=4.0)
    params = jax.vmap(lambda seed: model.init(jax.random.key(seed), scale=4.0))(trials.seed)
    return lj.Predictor(task, model, params, trials)


def test_a_generated_text_is_what_predictions_say_symbol_by_symbol():
    one, text = writer(), "that s"
    greedy = one.generate(text, 6, temperature=1e-4)
    for symbol in greedy:
        assert one.predict(text)[-1] == symbol
        text += symbol
    assert one.generate("that\N{SNOWMAN} s", 6, temperature=1e-4) == one.generate(
        "that s", 6, temperature=1e-4
    )


def test_symbols_are_drawn_with_their_probabilities_at_a_temperature():
    one, symbols = writer(), writer().task.vocabulary.symbols
    p = one.predict("the c", probabilities=True)[-1] ** (1 / 4)
    drawn = "".join(one.generate("the c", 1, temperature=4.0, seed=n) for n in range(400))
    share = np.array([drawn.count(symbol) for symbol in symbols]) / len(drawn)
    np.testing.assert_allclose(share, p / p.sum(), atol=4 * 0.5 / 20)
    assert one.generate("the", 20, seed=1) != one.generate("the", 20, seed=2)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (dict(prompt="", length=3), "prompt must have a symbol of the training part, got ''"),
        (
            dict(prompt="漢字", length=3),
            "prompt must have a symbol of the training part, got '漢字'",
        ),
        (dict(prompt="t", length=0), "length must be an integer of at least 1, got 0"),
        (dict(prompt="t", length=1, temperature=0.0), "temperature must be positive and finite"),
    ],
)
def test_a_text_that_cannot_be_generated_is_refused_by_name(given, words):
    with pytest.raises(ValueError, match=words):
        writer().generate(**given)
