"""`laconic coordinator check`: whether a coordinator could run, tried out before anything runs."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import socket
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from laconic import exit_codes
from laconic.config import load
from laconic.coordinator import probe
from laconic.coordinator.campaign import Campaign, Subject, update_limit_bytes
from laconic.coordinator.configuration import (
    CampaignSection,
    CoordinatorConfig,
    campaign_named,
    campaigns_of,
    control_path,
)
from laconic.coordinator.control_socket import ask, check_path
from laconic.coordinator.course import Course
from laconic.coordinator.daemon import subject_of
from laconic.coordinator.ledger import Ledger
from laconic.coordinator.migrations import FORMAT, format_of
from laconic.errors import LaconicError, ProtocolError, StorageError, StoreLocked
from laconic.storage import MemoryStore, ReadOnlyStore
from laconic.transport.mqtt import address_of
from laconic.transport.supervision import Supervisor

RIGHT, WRONG, UNSURE = "right", "wrong", "unsure"
_MARKS: Final = {RIGHT: "ok   ", WRONG: "WRONG", UNSURE: "?    "}
_MEMORIES: Final = 6
"""Vectors of the model's size that are kept besides versions, at most: residual, moments, echo, controls."""
_RELEASED: Final = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""No clock that goes is behind this."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    subject: str
    verdict: str
    said: str


def run(path: Path, environment: Mapping[str, str], *, as_json: bool) -> int:
    """Check everything, print what is right and what is wrong; returns the exit code."""
    findings = []
    for finding in check(path, environment):
        findings.append(finding)
        if not as_json:
            print(f"{_MARKS[finding.verdict]} {finding.subject}: {finding.said}", flush=True)
    wrong = sum(f.verdict == WRONG for f in findings)
    if as_json:
        rows = [{"subject": f.subject, "verdict": f.verdict, "said": f.said} for f in findings]
        print(json.dumps({"ok": not wrong, "findings": rows}, indent=2))
    elif wrong:
        print(f"laconic: {wrong} of {len(findings)} are wrong", file=sys.stderr)
    return exit_codes.CHECK if wrong else exit_codes.OK


def check(path: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Everything, one after the other. What depends on something that is wrong is not checked."""
    folder = path.resolve().parent
    try:
        config = load(CoordinatorConfig, path, environment, who="coordinator")
        campaigns = campaigns_of(config, folder)
        address = address_of(config.broker, folder)
        socket_path = check_path(control_path(config, folder))
    except LaconicError as e:
        yield _wrong("configuration", e)
        return
    cohorts = ", ".join(section.cohort for section, _ in campaigns)
    yield Finding("configuration", RIGHT, f"{path}, campaigns: {cohorts}")
    yield from _secrets(config, folder)
    subjects: list[tuple[Campaign, Subject]] = []
    for section, campaign in campaigns:
        yield from _bundle(config, section, campaign, folder, subjects)
    store = folder / config.store
    running = _runs(socket_path)
    yield from _store(config, store, subjects, running=running)
    yield from _disk(store, subjects)
    yield from _clock(store)
    if config.metrics.port and not running:
        yield _port(config.metrics.address, config.metrics.port)
    if environment.get("NOTIFY_SOCKET"):
        watched = Supervisor.of(environment).watchdog_s
        yield Finding("supervisor", RIGHT, f"systemd, watchdog {watched or 'off'}")
    chunk_bytes = max(campaign.chunk_bytes for _, campaign in campaigns)
    name = f"check-{secrets.token_hex(6)}"
    try:
        wanted = probe.rights(chunk_bytes, name)
        found = asyncio.run(probe.probe(address, wanted, name))
        if found.lost:
            asyncio.run(probe.clean(address, wanted, name))
    except LaconicError as e:
        yield _wrong("broker", e)
        return
    yield from _broker(f"{address.host}:{address.port}", wanted, found)


def _wrong(subject: str, error: LaconicError) -> Finding:
    return Finding(subject, WRONG, str(error))


def _secrets(config: CoordinatorConfig, folder: Path) -> Iterator[Finding]:
    """Files that others may read, too."""
    for key, name in (
        ("broker.password_file", config.broker.password_file),
        ("broker.key_file", config.broker.key_file),
        ("security.fleet_key_file", config.security.fleet_key_file),
    ):
        if name is not None:
            open_to_all = (folder / name).stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
            said = "can be read by others: chmod 600" if open_to_all else "is for its owner"
            yield Finding(key, UNSURE if open_to_all else RIGHT, f"{folder / name} {said}")


def _bundle(
    config: CoordinatorConfig,
    section: CampaignSection,
    campaign: Campaign,
    folder: Path,
    subjects: list[tuple[Campaign, Subject]],
) -> Iterator[Finding]:
    where = f"bundle of {section.cohort}"
    try:
        with campaign_named(config, section.cohort):
            subject = subject_of(campaign, section, folder)
            score = subject.evaluate(subject.initial)
            # What the campaign's rule and optimizer ask of the model is checked where they are made.
            empty = MemoryStore()
            Course(campaign, subject, Ledger(empty, max_devices=1), empty)
    except LaconicError as e:
        yield _wrong(where, e)
        return
    subjects.append((campaign, subject))
    parameters = f"{subject.bundle}, {subject.schema.size:,} values"
    if score is None:
        yield Finding(where, RIGHT, f"{parameters}; without held_out no version is evaluated")
    else:
        yield Finding(where, RIGHT, f"{parameters}; version 0 on held-out data: loss {score.loss:.4g}")


def _runs(socket_path: Path) -> bool:
    try:
        return ask(socket_path, ask="status") is not None
    except ProtocolError:
        return False


def _store(
    config: CoordinatorConfig, path: Path, subjects: list[tuple[Campaign, Subject]], *, running: bool
) -> Iterator[Finding]:
    if not path.exists():
        there = os.access(_existing(path.parent), os.W_OK)
        said = "will be made" if there else "cannot be made: the folder is not writable"
        yield Finding("store", RIGHT if there else WRONG, f"{path} {said}")
        return
    try:
        store = ReadOnlyStore(path)
    except StoreLocked:
        if running:
            yield Finding("store", RIGHT, f"{path} is held by the coordinator that runs")
        else:
            yield Finding("store", WRONG, f"{path} is held by another process")
        return
    except StorageError as e:
        yield _wrong("store", e)
        return
    try:
        if (damage := store.damage()) is not None:
            yield Finding("store", WRONG, f"{path} is damaged: {damage}; restore it from a copy")
            return
        found = format_of(store)
        if found > FORMAT:
            yield Finding("store", WRONG, f"{path} has format {found}, this release knows {FORMAT}")
            return
        if found < FORMAT:
            yield Finding("store", RIGHT, f"{path} has format {found} and will be brought to {FORMAT}")
            return
        devices = Ledger(store, max_devices=10**9)
        most = config.max_devices
        for campaign, subject in subjects:
            with campaign_named(config, campaign.cohort):
                Course(campaign, subject, devices, store)
        yield Finding(
            "store", RIGHT if len(devices) <= most else WRONG, f"{path}: {len(devices)} devices of {most}"
        )
    except LaconicError as e:
        yield _wrong("store", e)
    finally:
        store.close()


def needed_bytes(campaign: Campaign, subject: Subject, devices: int) -> int:
    """Most that a campaign's part of the store takes on the disk: versions, memories, a round's updates."""
    dense, keep = 4 * subject.schema.size, campaign.keep_versions
    frame = update_limit_bytes(subject.schema)
    versions = keep * (dense + frame) + 2 * frame
    reports = campaign.plan.asked(max(devices, campaign.plan.min_devices))
    records = campaign.history.rounds * (512 + 96 * min(campaign.history.names, reports))
    return versions + _MEMORIES * dense + reports * frame + records


def _disk(path: Path, subjects: list[tuple[Campaign, Subject]]) -> Iterator[Finding]:
    if not subjects:
        return
    held = path.stat().st_size if path.exists() else 0
    free = shutil.disk_usage(_existing(path.parent)).free
    # Of devices that have never come nobody knows; the ledger is small beside the rest.
    most = sum(needed_bytes(campaign, subject, 0) for campaign, subject in subjects)
    # A write is in the log and in the file for a while.
    wanted = max(0, 2 * most - held)
    verdict = RIGHT if free >= wanted else WRONG
    figures = f"{free / 1e6:,.0f} MB free, at most {wanted / 1e6:,.0f} MB more will be needed"
    yield Finding(
        "disk", verdict, figures if verdict == RIGHT else f"{figures}: make room, or lower keep_versions"
    )


def _clock(path: Path) -> Iterator[Finding]:
    now = time.time()
    said = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if now < _RELEASED:
        yield Finding("clock", WRONG, f"{said} is before this release was made: set it, and let NTP keep it")
        return
    newest = path.stat().st_mtime if path.exists() else 0.0
    if newest > now + 60:
        ahead = datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        yield Finding("clock", WRONG, f"{said}, but the store was written at {ahead}: schedules would wait")
        return
    yield Finding("clock", RIGHT, said)


def _port(address: str, port: int) -> Finding:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((address, port))
    except OSError as e:
        return Finding("metrics", WRONG, f"{address} port {port}: {e.strerror or e}; choose another")
    return Finding("metrics", RIGHT, f"http://{address}:{port}/metrics")


def _broker(where: str, wanted: list[probe.Right], found: probe.Found) -> Iterator[Finding]:
    if not found.connected:
        yield Finding("broker", WRONG, f"{where}: {found.why}; check broker.url, user, password, certificate")
        return
    yield Finding("broker", RIGHT, f"{where} lets us in; {found.births} devices have left word there")
    for right in wanted:
        subject = f"right to {'publish' if right.needed else 'hear'} {right.what}"
        if right.topic in found.heard:
            yield Finding(subject, RIGHT, right.topic)
        elif not right.needed:
            # We may hear devices and still have no right to speak as one.
            verdict = RIGHT if found.births else UNSURE
            said = "devices are heard" if found.births else "our own word as a device did not come back"
            yield Finding(
                subject, verdict, f"{said}: the coordinator must be allowed to read laconic/v1/d/+/up/#"
            )
        elif found.lost:
            yield Finding(
                subject, WRONG, f"the broker ended the connection ({found.lost}): is the packet too large?"
            )
        else:
            yield Finding(
                subject,
                WRONG,
                f"what was published under {right.topic} did not come back: the broker's rules deny "
                "publishing (which the coordinator needs) or reading (by which alone this can be checked)",
            )


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
