"""Storage by URI: the same properties on local disk and on a real S3 server; its errors."""

from __future__ import annotations

import socket
import string
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_loaders import storage
from data_loaders.dataset import begin_dataset, open_parquet, parquet_files, write_split
from data_loaders.errors import StorageError
from data_loaders.storage import Location, locate

NAMES = [
    "plain.txt",
    "two words.txt",
    "a/b/c.txt",
    "ünïcode-日本.txt",
    "50%25 + 1=2&c.txt",
    "#1.txt",
]


@pytest.fixture(params=["path", "file", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """An empty folder: as a local path, as a `file://` URI, and on the S3 server."""
    if request.param == "s3":
        return locate(request.getfixturevalue("s3_root"))
    folder = tmp_path / "ein Ordner"
    return locate(str(folder) if request.param == "path" else folder.as_uri())


@pytest.fixture
def broken_s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A URI on the S3 server that cannot work; the parameter says why."""
    env = request.getfixturevalue("s3_env")
    match request.param:
        case "wrong secret":
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        case "wrong key":
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "WRONG")
    bucket = "no-such-bucket" if request.param == "no bucket" else env["POLYTOWER_S3_TEST_BUCKET"]
    storage._filesystem.cache_clear()
    return f"s3://{bucket}/folder"


@pytest.fixture
def s3_clients_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An environment with made-up credentials, and no client kept from before or for after."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "made-up")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    storage._filesystem.cache_clear()
    yield
    storage._filesystem.cache_clear()


def assert_one_line_that_names(uri: str, error: StorageError) -> None:
    assert uri in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("name", NAMES)
def test_text_is_read_back_as_written_and_as_overwritten(root: Location, name: str) -> None:
    file = root.child(name)
    for text in ["first\n", "zweite Fassung: größer ✓\n", ""]:
        file.write_text(text)
        assert file.read_text() == text
        assert file.num_bytes() == len(text.encode())
    assert [child.name for child in root.children()] == [name.split("/")[0]]


@pytest.mark.parametrize("name", NAMES)
def test_the_uri_of_a_child_leads_to_the_child(root: Location, name: str) -> None:
    """What a manifest or a log line says can be opened again."""
    child = root.child(name)
    child.write_text("here")
    assert locate(child.uri).path == child.path
    assert locate(child.uri).read_text() == "here"


@pytest.mark.parametrize("name", ["plain.txt", "with space", "100%", "a+b=c"])
def test_the_parent_of_a_child_is_the_folder(root: Location, name: str) -> None:
    """By path and by URI, however deep; a bucket and `/` have none."""
    for child, parent in (
        (root.child(name), root),
        (root.child(f"deep/{name}/er"), root.child(f"deep/{name}")),
    ):
        assert (child.parent.path, child.parent.uri) == (parent.path, parent.uri)
        assert locate(child.parent.uri).path == parent.path
    top = locate("/")
    assert top.parent == top


def test_children_are_sorted_and_direct(root: Location) -> None:
    for name in ["b.txt", "a.txt", "c/d/e.txt", "c.txt"]:
        root.child(name).write_text(name)
    assert [child.name for child in root.children()] == ["a.txt", "b.txt", "c", "c.txt"]
    assert [child.uri for child in root.child("c").children()] == [f"{root.uri}/c/d"]
    assert root.child("none").children() == []


@pytest.mark.s3
def test_more_children_than_a_store_lists_at_once(s3_root: str) -> None:
    """An S3 answer holds 1000 names at most; deletion goes in batches too."""
    folder = locate(s3_root).child("many")
    names = [f"{index:04d}" for index in range(1005)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda name: folder.child(name).write_text("x"), names))
    assert [child.name for child in folder.children()] == names
    folder.delete()
    assert folder.children() == []


def test_files_and_folders_exist_and_prefixes_do_not(root: Location) -> None:
    root.child("folder/file.txt").write_text("x")
    assert root.exists()
    assert root.child("folder").exists()
    assert root.child("folder/file.txt").exists()
    assert not root.child("fold").exists()
    assert not root.child("folder/file").exists()


def test_deleting_a_folder_deletes_all_below_and_nothing_beside(root: Location) -> None:
    for name in ["run/a.txt", "run/b/c.txt", "run-2/a.txt", "run.txt"]:
        root.child(name).write_text("x")
    root.child("run").delete()
    assert not root.child("run").exists()
    assert not root.child("run/b/c.txt").exists()
    assert [child.name for child in root.children()] == ["run-2", "run.txt"]


def test_deleting_a_file_leaves_its_folder(root: Location) -> None:
    root.child("folder/file.txt").write_text("x")
    root.child("folder/file.txt").delete()
    assert root.child("folder").exists()
    assert root.child("folder").children() == []


def test_deleting_what_is_not_there_does_nothing(root: Location) -> None:
    root.child("none").delete()
    assert not root.exists()


def test_a_missing_file_is_named(root: Location) -> None:
    missing = root.child("gone.parquet")
    for read in (missing.read_text, missing.num_bytes, lambda: open_parquet(missing)):
        with pytest.raises(StorageError, match="no such file") as caught:
            read()
        assert_one_line_that_names(missing.uri, caught.value)


def test_a_folder_is_no_file(root: Location) -> None:
    root.child("folder/file.txt").write_text("x")
    with pytest.raises(StorageError, match="no such file"):
        root.child("folder").num_bytes()


def test_bytes_that_are_no_text_are_named(root: Location) -> None:
    file = root.child("binary")
    file.write_text("")
    with file.filesystem.open_output_stream(file.path) as stream:
        stream.write(b"\xff\xfe")
    with pytest.raises(StorageError, match="not UTF-8"):
        file.read_text()


def test_parquet_is_read_back_in_the_files_and_row_groups_asked_for(root: Location) -> None:
    table = pa.table({"user": list(range(2_500)), "title": [f"t{i}" for i in range(2_500)]})
    pieces = [table.slice(0, 700), table.slice(700, 1), table.slice(701)]
    begin_dataset(root, name="new")
    written = write_split(
        root, split="train", tables=pieces, rows_per_file=1_000, rows_per_row_group=300
    )
    files = [open_parquet(location) for location in parquet_files(root, split="train")]
    assert written == 2_500
    assert [file.metadata.num_rows for file in files] == [1_000, 1_000, 500]
    assert files[0].num_row_groups == 4
    assert pa.concat_tables([file.read() for file in files]).equals(table)
    with pytest.raises(StorageError, match="not empty"):
        begin_dataset(root, name="new")
    for file in files:
        file.close(force=True)


def test_a_truncated_parquet_file_is_named(root: Location) -> None:
    write_split(
        root,
        split="train",
        tables=[pa.table({"x": list(range(100))})],
        rows_per_file=100,
        rows_per_row_group=100,
    )
    [location] = parquet_files(root, split="train")
    with location.filesystem.open_input_stream(location.path) as stream:
        content = stream.read()
    with location.filesystem.open_output_stream(location.path) as stream:
        stream.write(content[: len(content) // 2])
    with pytest.raises(StorageError, match="truncated") as caught:
        open_parquet(location)
    assert_one_line_that_names(location.uri, caught.value)


@pytest.mark.s3
@pytest.mark.parametrize("broken_s3", ["wrong secret", "wrong key"], indirect=True)
def test_wrong_credentials_are_reported_at_once(broken_s3: str) -> None:
    file = locate(broken_s3).child("x")
    table = pa.table({"x": [1]})
    for use in (
        file.exists,
        file.children,
        file.num_bytes,
        file.read_text,
        file.delete,
        lambda: file.write_text("x"),
        lambda: open_parquet(file),
        lambda: write_split(
            file, split="train", tables=[table], rows_per_file=1, rows_per_row_group=1
        ),
    ):
        with pytest.raises(StorageError, match=r"AWS Error.*environment") as caught:
            use()
        assert_one_line_that_names(file.uri, caught.value)
        assert "truncated" not in str(caught.value)


@pytest.mark.s3
@pytest.mark.parametrize("broken_s3", ["no bucket"], indirect=True)
def test_a_missing_bucket_is_reported(broken_s3: str) -> None:
    file = locate(broken_s3).child("x")
    assert not file.exists()
    assert file.children() == []
    with pytest.raises(StorageError, match="NO_SUCH_BUCKET") as caught:
        file.write_text("x")
    assert_one_line_that_names(file.uri, caught.value)
    with pytest.raises(StorageError, match="no such file"):
        file.read_text()


@pytest.mark.usefixtures("s3_clients_anew")
def test_an_endpoint_that_refuses_connections_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        file = locate("s3://bucket/x")
        with pytest.raises(StorageError, match="connect to server") as caught:
            file.read_text()
    assert_one_line_that_names(file.uri, caught.value)


@pytest.mark.usefixtures("s3_clients_anew")
def test_an_endpoint_that_never_answers_is_reported_when_the_attempts_are_used_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage, "S3_REQUEST_TIMEOUT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StorageError, match="Timeout was reached"):
            locate("s3://bucket/x").exists()


@pytest.mark.parametrize(
    "uri",
    [
        "s3://KEY:SECRET@bucket/folder",
        "s3://KEY:SEC/RET@bucket/folder",
        "s3://KEY:SEC?RET@bucket/folder",
        "s3://SECRET@bucket/folder",
        "gs://KEY:SECRET@bucket/folder",
        "hdfs://user:SECRET@host:9000/folder",
        "s3://bucket/folder?secret_key=SECRET",
        "s3://bucket/folder?region=eu&session_token=SECRET",
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_printed(uri: str) -> None:
    with pytest.raises(StorageError, match="credentials") as caught:
        locate(uri)
    assert "SEC" not in str(caught.value)
    assert "RET" not in str(caught.value)


@pytest.mark.parametrize("uri", ["ftp://host/x", "s3:///x", "s3://b/x?nope=1", "file://host/x"])
def test_a_uri_that_cannot_be_opened_is_named(uri: str) -> None:
    with pytest.raises(StorageError) as caught:
        locate(uri)
    assert_one_line_that_names(uri, caught.value)


@given(st.lists(st.text(string.ascii_letters + "äß日 .-_%=+", min_size=1), min_size=1, max_size=3))
def test_a_query_stays_at_the_end_of_a_childs_uri(names: list[str]) -> None:
    query = "endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    root = locate(f"s3://bucket/data?{query}")
    child = root.child("/".join(names))
    assert child.uri == f"s3://bucket/data/{'/'.join(names)}?{query}"
    assert child.path == f"bucket/data/{'/'.join(names)}"
    assert locate(child.uri).path == child.path


def test_a_question_mark_in_a_local_path_is_part_of_it(tmp_path: Path) -> None:
    file = locate(str(tmp_path / "what?")).child("x.txt")
    file.write_text("here")
    assert file.uri == str(tmp_path / "what?" / "x.txt")
    assert (tmp_path / "what?" / "x.txt").read_text() == "here"


def test_a_local_write_that_fails_keeps_the_old_text(tmp_path: Path) -> None:
    file = locate(str(tmp_path)).child("x.txt")
    file.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        file.write_text("half \udcff")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_a_local_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    target = locate(str(tmp_path)).child("file/below.txt")
    with pytest.raises(StorageError, match="cannot be written") as caught:
        target.write_text("x")
    assert_one_line_that_names(target.uri, caught.value)
