from vmctl import console


def test_what_a_guest_sends_cannot_reach_the_terminal():
    text = "[\x1b[0;1;31mFAILED\x1b[0m] unit\n\x1b]0;title\x07plain\r\nbell\x07\x1b[2Jcleared\x9b31m ü\n\x1b"
    assert console.lines(text) == ["[FAILED] unit", "plain", "bellcleared31m ü", ""]
