"""KuaiRand-Pure: one row per impression of a short video, 25 April to 8 May 2022, five labels.

Train is dated up to and including 5 May, its rows shuffled by the seed; test is the rest; no valid.

    click, long_view, like, profile_enter    labels: 1.0 or 0.0
    play_time                                label: milliseconds
    user_id, video_id, date, time_ms         as in the log, for reading; not for input
    user, video, author, music, ...          int32 codes; vocabularies.json has the values
    tags                                     list of int32 codes
    hour, duration_bucket                    int32 codes
    duration_ms, follow_user_num, ...        float32
    long_view_history, like_history          the user's earlier videos, latest last (`video` codes)
    past_*                                   float32, see data_loaders/public/kuairand_past.py

The monthly video statistics of the original are not used: they count the labels of the test days.
The log as published holds some impressions twice (tab 6, all columns equal); they are kept.

Source: https://kuairand.com, CC BY-SA 4.0
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_loaders.public.kuairand_past import HISTORIES, Columns, describe_past
from data_loaders.public.raw_data import PublicData, read_csv, read_parquet
from data_loaders.public.vocabulary import CODE_TYPE, Buckets, Codes, Vocabulary
from data_loaders.storage import Location

LOGS = ("log_standard_0425_0430.parquet", "log_standard_0501_0508.parquet")
SEQUENCES = "user_sequences_train.parquet"
USERS = "user_features_pure.csv.gz"
VIDEOS = "video_features_basic_pure.csv.gz"
EXPECTED = f"KuaiRand-Pure: {', '.join((*LOGS, SEQUENCES, USERS, VIDEOS))}"

LAST_TRAIN_DATE = 20220505
LABELS = {
    "click": "is_click",
    "long_view": "long_view",
    "like": "is_like",
    "profile_enter": "is_profile_enter",
    "play_time": "play_time_ms",
}
USER_NUMBERS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
USER_CATEGORIES = (
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{index}" for index in range(18)),
)
VIDEO_CATEGORIES = ("video_type", "upload_type", "music_type")
NUM_DURATION_BUCKETS = 20
# Ids that train holds less often share code 0; videos in train's histories count too.
MIN_COUNTS = {"user": 2, "video": 3, "author": 3, "music": 3}


def build(source: Location, *, seed: int) -> PublicData:
    """Reads the two logs, the sequences and the features of users and videos.

    Raises:
        StorageError: a file is missing.
        SchemaError: a file lacks a column.
    """
    log, sequences, users, videos = _read(source)
    is_train = log["date"].to_numpy() <= LAST_TRAIN_DATE
    of_video = _groups_of_videos(videos)
    past = describe_past(log=_events(log), sequences=sequences, of_video=of_video, train_R=is_train)
    raw = _join(log, users=users, videos=videos)
    for name in past.column_names:
        raw = raw.append_column(name, past[name])
    codes = _fit(raw.filter(pa.array(is_train)))
    table = _encode(raw, codes=codes)
    train = table.filter(pa.array(is_train))
    return PublicData(
        description=(
            "KuaiRand-Pure (CC BY-SA 4.0), standard log. Tasks: click, long_view, like, "
            "profile_enter, play_time. train is dated up to 2022-05-05, test the three days after."
        ),
        splits={
            "train": train.take(np.random.default_rng(seed).permutation(train.num_rows)),
            "test": table.filter(pa.array(~is_train)),
        },
        codes=codes,
    )


def _read(source: Location) -> tuple[pa.Table, pa.Table, pa.Table, pa.Table]:
    """The log by time, the sequences, the users and the videos."""
    columns = [
        "user_id",
        "video_id",
        "date",
        "hourmin",
        "time_ms",
        "tab",
        "duration_ms",
        *LABELS.values(),
    ]
    parts = [read_parquet(source, name, columns=columns, expected=EXPECTED) for name in LOGS]
    log = pa.concat_tables(parts, promote_options="permissive")
    order = np.lexsort([log[name].to_numpy() for name in ("tab", "video_id", "user_id", "time_ms")])
    sequences = read_parquet(
        source,
        SEQUENCES,
        columns=["user_id", "last_time_ms", "watch_seq", "like_seq", "long_watch_seq"],
        expected=EXPECTED,
    )
    user_types = {"user_id": pa.int64()}
    user_types |= dict.fromkeys(USER_NUMBERS, pa.float64()) | dict.fromkeys(
        USER_CATEGORIES, pa.string()
    )
    video_types = {
        "video_id": pa.int64(),
        "author_id": pa.int64(),
        "music_id": pa.int64(),
        "tag": pa.string(),
    }
    video_types |= {"video_duration": pa.float64()} | dict.fromkeys(VIDEO_CATEGORIES, pa.string())
    users = read_csv(source, USERS, types=user_types, has_header=True, expected=EXPECTED)
    videos = read_csv(source, VIDEOS, types=video_types, has_header=True, expected=EXPECTED)
    return log.take(order), sequences, users, videos


def _events(log: pa.Table) -> Columns:
    """What describe_past asks for; tabs from 1, because a sequence knows none."""
    columns = {name: log[raw].to_numpy().astype(np.float64) for name, raw in LABELS.items()}
    columns["play_time"] = np.log1p(columns["play_time"])
    columns |= {name: log[f"{name}_id"].to_numpy() for name in ("user", "video")}
    return columns | {"tab": log["tab"].to_numpy() + 1, "time_ms": log["time_ms"].to_numpy()}


def _groups_of_videos(videos: pa.Table) -> Columns:
    """author, first tag and range of duration by video id; ids without features share group 0."""
    ids = videos["video_id"].to_numpy()
    first_tag = pc.list_element(_split_tags(videos["tag"]), 0)
    edges = np.array([7e3, 18e3, 40e3, 80e3, 160e3, 300e3])
    groups = {
        "author": Vocabulary.fit(videos["author_id"]).encode(videos["author_id"]).to_numpy(),
        "tag": Vocabulary.fit(first_tag).encode(first_tag).to_numpy(),
        "duration": Buckets(edges=edges).encode(videos["video_duration"].to_numpy()).to_numpy(),
    }
    by_id = {name: np.zeros(1 + ids.max(initial=0), np.int64) for name in groups}
    for name, values in groups.items():
        by_id[name][ids] = values
    return by_id


def _join(log: pa.Table, *, users: pa.Table, videos: pa.Table) -> pa.Table:
    """The log with the features of its users and videos, null where they are not listed."""
    user_rows = pc.index_in(log["user_id"], value_set=users["user_id"].combine_chunks())
    video_rows = pc.index_in(log["video_id"], value_set=videos["video_id"].combine_chunks())
    joined = log
    for features, rows in ((users, user_rows), (videos, video_rows)):
        for name in features.column_names[1:]:
            joined = joined.append_column(name, features[name].take(rows))
    return joined


def _fit(train: pa.Table) -> dict[str, Codes]:
    videos = [train["video_id"].combine_chunks()]
    videos += [pc.list_flatten(train[name].combine_chunks()) for name in HISTORIES]
    raw = {
        "user": train["user_id"],
        "video": pa.chunked_array(videos),
        "author": train["author_id"],
        "music": train["music_id"],
        "tab": train["tab"],
        "hour": train["hourmin"],
        "tags": pc.list_flatten(_split_tags(train["tag"])),
    }
    raw |= {name: train[name] for name in (*USER_CATEGORIES, *VIDEO_CATEGORIES)}
    codes: dict[str, Codes] = {
        name: Vocabulary.fit(values, min_count=MIN_COUNTS.get(name, 1))
        for name, values in raw.items()
    }
    durations = train["duration_ms"].to_numpy().astype(np.float64)
    return codes | {"duration_bucket": Buckets.fit(durations, num_buckets=NUM_DURATION_BUCKETS)}


def _encode(raw: pa.Table, *, codes: dict[str, Codes]) -> pa.Table:
    columns = {name: raw[source].cast(pa.float32()) for name, source in LABELS.items()}
    columns |= {name: raw[name] for name in ("user_id", "video_id", "date", "time_ms")}
    for name in ("user", "video", "author", "music"):
        columns[name] = codes[name].encode(raw[f"{name}_id"])
    columns |= {
        "tab": codes["tab"].encode(raw["tab"]),
        "hour": codes["hour"].encode(raw["hourmin"]),
    }
    columns |= {
        name: codes[name].encode(raw[name]) for name in (*USER_CATEGORIES, *VIDEO_CATEGORIES)
    }
    durations = raw["duration_ms"].to_numpy().astype(np.float64)
    columns["duration_bucket"] = codes["duration_bucket"].encode(durations)
    columns["tags"] = _encode_lists(_split_tags(raw["tag"]), codes["tags"])
    columns |= {
        name: _encode_lists(raw[name].combine_chunks(), codes["video"]) for name in HISTORIES
    }
    columns |= {name: raw[name].cast(pa.float32()) for name in ("duration_ms", *USER_NUMBERS)}
    columns |= {name: raw[name] for name in raw.column_names if name.startswith("past_")}
    return pa.table(columns)


def _encode_lists(lists: pa.ListArray, codes: Codes) -> pa.ListArray:
    """The same lists with codes for values; null lists become empty."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    values = pc.list_flatten(lists)
    encoded = codes.encode(values) if len(values) else pa.array([], CODE_TYPE)
    return pa.ListArray.from_arrays(offsets, encoded)


def _split_tags(tags: pa.ChunkedArray) -> pa.ListArray:
    """`12,65` as a list; null where there is none."""
    return pc.split_pattern(tags, ",").combine_chunks()
