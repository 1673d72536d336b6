from fastllm import words


def test_durations() -> None:
    shown = [words.duration(seconds) for seconds in (0, 89.4, 200, 5400, 7500)]
    assert shown == ["0 s", "89 s", "3 min", "1 h 30 min", "2 h 05 min"]


def test_a_capital_leaves_the_rest_as_it_is() -> None:
    assert words.capital("greedy, T5") == "Greedy, T5"
    assert words.capital("") == ""


def test_what_is_long_is_cut_short() -> None:
    assert words.shortened("abcdef", 6) == "abcdef"
    assert words.shortened("abcdefg", 6) == "abc..."
    assert words.first_line(ValueError("\n one \ntwo")) == "one "
    assert words.first_line(ValueError()) == "ValueError"
    assert len(words.first_line(ValueError("x" * 999))) == words.MOST_ECHOED
