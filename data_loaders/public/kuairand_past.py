"""What was known of a KuaiRand impression's user and video before it was shown.

Events are the log's own rows and, before them, the watched videos of `user_sequences_train.parquet`
(8 to 24 April). Three rules keep the future and the answer out, for train and test alike:

* An event counts for an impression only if its moment is strictly smaller. For groups of a user the
  moment is the timestamp; for videos, authors and tags it is the local day.
* A sequence has no timestamps of its own: all its events take the moment of the last one in the
  whole file, so that only impressions later than everything in the file see any of it.
* An impression dated as test is no event if it is not later than all of train (days in the log
  begin about an hour before midnight): so no feature of a train row comes from a test row.

An outcome counts as known from the impression's timestamp on, although the video may play on.
Smoothed means get sharper as the log grows: their spread is a little wider in test than in train.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_loaders.public.past import Past

Columns = dict[str, np.ndarray]

OUTCOMES = ("click", "long_view", "like", "profile_enter", "play_time")
KNOWN_OF_SEQUENCES = ("long_view", "like")
MS_PER_DAY = 86_400_000
BEIJING_MS = 8 * 3_600_000


@dataclass(frozen=True)
class Scope:
    """A group of events and what is said of it.

    Attributes:
        group: the columns whose values an impression and its events share.
        by_day: the event's moment is its day instead of its timestamp.
        outcomes: columns of which to give the smoothed mean.
        prior_events: events at train's mean that are added to each group.
    """

    group: tuple[str, ...]
    by_day: bool
    outcomes: tuple[str, ...]
    prior_events: float


SCOPES = {
    "user": Scope(("user",), False, OUTCOMES, 5),
    "user_tag": Scope(("user", "tag"), False, ("click", "long_view", "like"), 2),
    "user_author": Scope(("user", "author"), False, ("click", "long_view", "like"), 2),
    "user_duration": Scope(("user", "duration"), False, ("click", "long_view", "like"), 2),
    "user_tab": Scope(("user", "tab"), False, ("click", "long_view"), 2),
    "user_today": Scope(("user", "day"), False, ("click", "long_view", "play_time"), 1),
    "video": Scope(("video",), True, OUTCOMES, 20),
    "video_tab": Scope(("video", "tab"), True, ("click", "long_view"), 20),
    "author": Scope(("author",), True, OUTCOMES, 20),
    "tag": Scope(("tag",), True, OUTCOMES, 20),
}
HISTORIES = {"long_view_history": ("long_view", 50), "like_history": ("like", 20)}


def describe_past(
    *, log: Columns, sequences: pa.Table, of_video: Columns, train_R: np.ndarray
) -> pa.Table:
    """The columns `past_*` and HISTORIES, one row per impression.

    `past_<scope>_impressions` counts earlier events. `past_<scope>_<outcome>` is an outcome's mean
    over them, smoothed towards train's mean; play_time is in log(1 + milliseconds).

    Args:
        log: user, video, tab, time_ms and OUTCOMES of each impression.
        sequences: user_id, last_time_ms, watch_seq, like_seq, long_watch_seq.
        of_video: author, tag and duration, non-negative integers by video id.
        train_R: bool, the impressions of train.
    """
    first_ms = int(min(log["time_ms"].min(), pc.min(sequences["last_time_ms"]).as_py() or 2**62))
    rows = _with_groups(log | {"moment": log["time_ms"] - first_ms}, of_video, first_ms=first_ms)
    usable_R = train_R | (log["time_ms"] > log["time_ms"][train_R].max(initial=0))
    known = {name: values[usable_R] for name, values in rows.items()}
    known["in_log"] = np.ones(usable_R.sum())
    before = _with_groups(
        _sequence_events(sequences, first_ms=first_ms), of_video, first_ms=first_ms
    )
    events = {name: np.concatenate([before[name], known[name]]) for name in before}

    means = {name: float(log[name][train_R].mean()) for name in OUTCOMES}
    columns: dict[str, np.ndarray | pa.Array] = {}
    for name, scope in SCOPES.items():
        past = _past(scope, events=events, rows=rows)
        in_log = past.sums(events["in_log"])
        columns[f"past_{name}_impressions"] = past.counts
        for outcome in scope.outcomes:
            count = past.counts if outcome in KNOWN_OF_SEQUENCES else in_log
            total = past.sums(events[outcome]) + means[outcome] * scope.prior_events
            columns[f"past_{name}_{outcome}"] = total / (count + scope.prior_events)
    columns |= _latest(known=known, rows=rows)
    for name, (outcome, max_length) in HISTORIES.items():
        kept = {column: values[events[outcome] == 1] for column, values in events.items()}
        past = _past(SCOPES["user"], events=kept, rows=rows)
        columns[name] = past.lists(kept["video"], max_length=max_length)
    return pa.table(
        {
            name: values if isinstance(values, pa.Array) else pa.array(values.astype(np.float32))
            for name, values in columns.items()
        }
    )


def _past(scope: Scope, *, events: Columns, rows: Columns) -> Past:
    def key(columns: Columns) -> tuple[np.ndarray, np.ndarray]:
        groups = np.zeros(len(columns["user"]), np.int64)
        for name in scope.group:
            size = 1 + int(max(events[name].max(initial=0), rows[name].max(initial=0)))
            groups = groups * size + columns[name]
        return groups, columns["day" if scope.by_day else "moment"]

    return Past.of(events=key(events), rows=key(rows))


def _latest(*, known: Columns, rows: Columns) -> dict[str, pa.Array]:
    """How long ago the user's latest impression in the log was, and its outcomes; null if none."""
    past = _past(SCOPES["user"], events=known, rows=rows)
    seconds = (rows["moment"] - past.last(known["moment"], otherwise=0)) / 1000
    latest = {"past_seconds_since": seconds}
    for outcome in ("click", "long_view", "play_time"):
        latest[f"past_latest_{outcome}"] = past.last(known[outcome], otherwise=0)
    return {
        name: pa.array(values.astype(np.float32), mask=past.counts == 0)
        for name, values in latest.items()
    }


def _sequence_events(sequences: pa.Table, *, first_ms: int) -> Columns:
    """One event per watched video, oldest first per user; what the sequences do not tell is 0."""

    def flat(name: str) -> tuple[np.ndarray, np.ndarray]:
        lists = sequences[name].combine_chunks()
        users = sequences["user_id"].combine_chunks().take(pc.list_parent_indices(lists))
        return users.to_numpy(), pc.list_flatten(lists).to_numpy()

    users, videos = flat("watch_seq")
    size = 1 + max(
        int(flat(name)[1].max(initial=0)) for name in ("watch_seq", "like_seq", "long_watch_seq")
    )
    moment = (pc.max(sequences["last_time_ms"]).as_py() or first_ms) - first_ms
    events = {"user": users, "video": videos, "moment": np.full(len(users), moment)}
    for outcome, name in (("like", "like_seq"), ("long_view", "long_watch_seq")):
        found_users, found_videos = flat(name)
        found = np.isin(users * size + videos, found_users * size + found_videos)
        events[outcome] = found.astype(np.float64)
    zeros = np.zeros(len(users))
    unknown = [name for name in OUTCOMES if name not in KNOWN_OF_SEQUENCES]
    return events | dict.fromkeys((*unknown, "in_log"), zeros) | {"tab": zeros.astype(np.int64)}


def _with_groups(columns: Columns, of_video: Columns, *, first_ms: int) -> Columns:
    local_ms = columns["moment"] + first_ms + BEIJING_MS
    groups = {name: values[columns["video"]] for name, values in of_video.items()}
    return (
        columns | groups | {"day": local_ms // MS_PER_DAY - (first_ms + BEIJING_MS) // MS_PER_DAY}
    )
