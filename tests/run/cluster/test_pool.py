"""Who may be at work beside whom."""

import threading

from hwsearch.run.cluster.pool import _Room


class Guest(threading.Thread):
    """Enters a room, and stays until it is told to go."""

    def __init__(self, room, alone):
        super().__init__(daemon=True)
        self.room, self.alone = room, alone
        self.inside, self.leave = threading.Event(), threading.Event()
        self.start()

    def run(self):
        with self.room.entered(alone=self.alone):
            self.inside.set()
            self.leave.wait()


def is_kept_out(guest):
    return not guest.inside.wait(0.1)


def go(*guests):
    for guest in guests:
        guest.leave.set()
        guest.join()


def test_who_measures_is_alone_and_comes_in_turn():
    room = _Room(3)
    first, second = Guest(room, False), Guest(room, False)
    assert first.inside.wait()
    assert second.inside.wait()
    measuring = Guest(room, True)
    assert is_kept_out(measuring)
    late = Guest(room, False)
    assert is_kept_out(late)  # else whoever measures would wait for ever
    go(first)
    assert is_kept_out(measuring)
    go(second)
    assert measuring.inside.wait()
    assert is_kept_out(late)
    go(measuring)
    assert late.inside.wait()
    other = Guest(room, False)
    assert other.inside.wait()
    go(late, other)


def test_two_that_measure_come_one_after_the_other():
    room = _Room(2)
    first = Guest(room, True)
    assert first.inside.wait()
    second = Guest(room, True)
    assert is_kept_out(second)
    go(first)
    assert second.inside.wait()
    go(second)
