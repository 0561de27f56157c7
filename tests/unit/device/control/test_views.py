"""What a container sees of the runtime stays right when the supervisor, and with it the socket, is made anew."""

from __future__ import annotations

import socket
from pathlib import Path

from brickless.device.control import views
from brickless.device.control.listener import unix_door


def door(run: Path) -> socket.socket:
    return unix_door(str(run / "pv-ctrl"), lambda _sock: None).listener


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True


def test_a_new_socket_appears_in_the_folder_that_is_bound(tmp_path: Path) -> None:
    first = door(tmp_path)
    public = Path(views.prepare(str(tmp_path), "web"))
    assert sorted(path.name for path in public.iterdir()) == ["device-meta", "logs", "pv-ctrl", "user-meta"]
    assert connects(public / "pv-ctrl")
    first.close()
    assert not connects(public / "pv-ctrl")
    second = door(tmp_path)
    views.refresh(str(tmp_path))
    assert connects(public / "pv-ctrl")
    views.refresh(str(tmp_path))
    assert connects(public / "pv-ctrl")
    second.close()


def test_a_container_may_start_before_there_is_a_socket(tmp_path: Path) -> None:
    public = Path(views.prepare(str(tmp_path), "web"))
    assert not (public / "pv-ctrl").exists()
    with door(tmp_path):
        views.refresh(str(tmp_path))
        assert connects(public / "pv-ctrl")
    assert (tmp_path / "user-meta.web").is_dir()
