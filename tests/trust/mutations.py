"""Defences, each with what it becomes when it is taken away, and a test that fails then.

A row names the defence, the file it is in, its text, the text in its place, and the test.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """A defence that is taken away."""

    name: str
    file: str
    original: str
    mutated: str
    test: str


_OWNERS = "server/tserver/models/owners.py"
_TEST_OWNERS = "tests/trust/test_owners.py"
_TEST_OWNERSHIP = "tests/trust/test_ownership.py"
_SESSIONS = "server/tserver/session/registry.py"
_TEST_ATTACH = "tests/trust/test_attach.py"
_TEST_SHARING = "tests/trust/test_sharing.py"
_TEST_REGIONS = "tests/trust/test_regions.py"
_FILES = "server/tserver/storage/files.py"
_PATHS = "server/tserver/storage/paths.py"
_STORE = "server/tserver/storage/store.py"
_STORAGE_CALLS = "server/tserver/engines/storage_calls.py"
_TEST_KEPT = "tests/trust/test_kept.py"
_TEST_STORE = "tests/storage/test_store.py"
_TEST_WAITING = "tests/storage/test_waiting.py"
_TEST_KEEPING = "tests/checkpoints/test_keeping.py"
_TEST_SNAPSHOTS = "tests/checkpoints/test_snapshots.py"
_TEST_RESUMING = "tests/checkpoints/test_resuming.py"
_OBJECTS = "server/tserver/engine/object_store.py"
_TEST_QUOTAS = "tests/trust/test_quotas.py"
_TEST_HOUSE = "tests/trust/test_quotas_of_a_house.py"
_GATE = "server/tserver/front/oip/gate.py"
_TEST_GATE = "tests/limits/test_oip.py"
_ACCOUNT = "server/tserver/limits/account.py"
_TEST_LIMITS = "tests/trust/test_limits.py"
_OPENED = "server/tserver/front/opened.py"
_TEST_REVOKED = "tests/trust/test_revoked.py"
_TEST_RENEWED = "tests/trust/test_renewed.py"
_JWKS = "server/tserver/credentials/jwks.py"
_TEST_JWT = "tests/trust/test_jwt.py"
_DATA_ENDPOINT = "server/tserver/front/data_endpoint.py"
_TEST_TICKETS = "tests/trust/test_tickets.py"

_ROUTER = "server/tserver/front/router.py"
_KEPT_SESSIONS = "tests/trust/test_kept_sessions.py::test_a_session_that_a_house_has_kept"

_TEST_APART = "tests/trust/test_models_apart.py::test_a_model_of_one_s_own_is_in_no_engine_of_another"

MUTATIONS: list[Mutation] = [
    Mutation(
        "a principal's models are in no process of another",
        "server/tserver/front/replicas/spreading.py",
        "return not owner or self._owner_of is None or self._owner_of(entry.info.engine) == owner",
        "return True",
        f"{_TEST_APART}[principal]",
    ),
    # --- what a house has kept of sessions ---
    Mutation(
        "a front remembers a session that was brought back for its principal alone",
        _ROUTER,
        "whose = hashlib.sha256(secret).digest(), rpc.principal",
        'whose = hashlib.sha256(secret).digest(), ""',
        f"{_KEPT_SESSIONS}_is_brought_back_for_its_principal_alone",
    ),
    Mutation(
        "an engine has a session for its principal alone",
        _SESSIONS,
        "return session is not None and _is_of(session, identity)",
        "return session is not None",
        f"{_KEPT_SESSIONS}_is_brought_back_for_its_principal_alone",
    ),
    Mutation(
        "an engine of a house goes on with no session that its front has not brought there",
        _SESSIONS,
        "if self._kept is not None and self._is_of_house:",
        "if False:",
        f"{_KEPT_SESSIONS}_is_brought_back_for_its_principal_alone",
    ),
    # --- what belongs to whom ---
    Mutation(
        "names of a principal's own",
        "server/tserver/identity.py",
        'return "" if self.role >= Role.ADMIN else',
        'return "" if self.role >= Role.USER else',
        f"{_TEST_OWNERS}::test_two_principals_have_models_of_one_name",
    ),
    Mutation(
        "no name with a slash leads to another's model",
        _OWNERS,
        'if "/" in name or not self._has(name):',
        "if not self._has(name):",
        f"{_TEST_OWNERS}::test_a_model_of_another_s_is_not_there",
    ),
    Mutation(
        "none is loaded by such a name",
        _OWNERS,
        'if "/" in name and (namespace or not self._has(name)):',
        'if "/" in name and not self._has(name):',
        f"{_TEST_OWNERS}::test_the_open_inference_protocol_knows_owners_too",
    ),
    Mutation(
        "none is made by such a name",
        _OWNERS,
        "    names.check_usable(name)\n",
        "",
        f"{_TEST_OWNERS}::test_no_name_leads_to_the_models_of_another",
    ),
    Mutation(
        "lists tell of no models of others",
        _OWNERS,
        "elif names.is_public(each.name):",
        "else:",
        f"{_TEST_OWNERS}::test_a_model_of_another_s_is_not_there",
    ),
    Mutation(
        "public models take the role of a publisher",
        _OWNERS,
        "if public and identity.role < Role.PUBLISHER:",
        "if public and identity.role < Role.USER:",
        f"{_TEST_OWNERS}::test_a_public_model_takes_the_role_of_a_publisher",
    ),
    Mutation(
        "a public model is changed by its owner alone",
        _OWNERS,
        "names.is_public(each.name) and each.owner != identity.principal",
        "names.is_public(each.name) and not identity.principal",
        f"{_TEST_OWNERS}::test_a_public_model_is_seen_by_all_and_changed_by_its_owner",
    ),
    Mutation(
        "nobody else adds a version to it",
        _OWNERS,
        "        check_may_change(versions.values(), identity)\n",
        "",
        f"{_TEST_OWNERS}::test_a_public_model_is_seen_by_all_and_changed_by_its_owner",
    ),
    Mutation(
        "over the Open Inference Protocol neither",
        "server/tserver/front/oip/service.py",
        "            check_may_change(self._registry.versions(name), identity)\n",
        "            pass\n",
        f"{_TEST_OWNERS}::test_the_open_inference_protocol_knows_owners_too",
    ),
    Mutation(
        "nor through the front of a house",
        "server/tserver/front/replicas/servicer.py",
        "            check_may_change(self._records.versions(name), rpc.identity)\n",
        "            pass\n",
        "tests/trust/test_owners_of_a_house.py::test_a_name_is_its_caller_s_on_every_engine",
    ),
    Mutation(
        "requests of a stream find what their caller sees",
        "server/tserver/front/forward_stream.py",
        "find = Owners(registry.has).finder(find, rpc.identity)",
        "find = find",
        f"{_TEST_OWNERS}::test_a_model_of_another_s_is_not_there",
    ),
    Mutation(
        "and so do those of a lane",
        "server/tserver/front/forward_stream.py",
        "find = Owners(models.registry.has).finder(models.registry.find, identity)",
        "find = models.registry.find",
        f"{_TEST_OWNERS}::test_a_lane_finds_what_its_session_s_principal_sees",
    ),
    Mutation(
        "and those of a stream to the front",
        "server/tserver/front/replicas/streams.py",
        "self._find = Owners(records.has).finder(records.find, rpc.identity)",
        "self._find = records.find",
        "tests/trust/test_owners_of_a_house.py::test_a_name_is_its_caller_s_on_every_engine",
    ),
    Mutation(
        "calls of a session find what its caller sees",
        "server/tserver/engine/builtin_operations.py",
        "partial(find_model, store.namespace)",
        'partial(find_model, "")',
        f"{_TEST_OWNERS}::test_a_model_of_another_s_is_not_there",
    ),
    Mutation(
        "and no more than it may now",
        "server/tserver/session/registry.py",
        "    session.queue.store.namespace = identity.namespace\n",
        "",
        f"{_TEST_OWNERS}::test_a_session_names_no_more_than_its_caller_may_now",
    ),
    Mutation(
        "an engine asks the front in its caller's name",
        "server/tserver/front/replicas/elsewhere.py",
        "(*house_metadata(self._house.key, identity), (HOUSE_ENGINE",
        "(*house_metadata(self._house.key), (HOUSE_ENGINE",
        "tests/trust/test_owners_of_a_house.py::test_a_name_is_its_caller_s_on_every_engine",
    ),
    Mutation(
        "nobody fills the metrics",
        "server/tserver/front/metrics.py",
        "if not owner or told[owner] <= _MAX_OF_OWNER:",
        "if told[owner]:",
        f"{_TEST_OWNERS}::test_an_owner_fills_no_metrics",
    ),
    Mutation(
        "a session is its principal's",
        "server/tserver/session/registry.py",
        "return session.principal == identity.principal",
        "return bool(session.principal)",
        f"{_TEST_OWNERSHIP}::test_a_session_of_another_s_never_was",
    ),
    Mutation(
        "one that has ended, too",
        "server/tserver/session/registry.py",
        "if principal and principal == identity.principal:",
        "if principal:",
        f"{_TEST_OWNERSHIP}::test_a_session_of_another_s_never_was",
    ),
    Mutation(
        "tensors without a session are a connection's where nobody is known",
        "server/tserver/identity.py",
        "return self.connection or self.principal",
        "return self.principal",
        "tests/trust/test_sessionless.py::test_connections_of_nobody_who_is_known_share_nothing",
    ),
    Mutation(
        "and a principal's where it is",
        "server/tserver/session/registry.py",
        "        whose = identity.without_session\n",
        '        whose = "all"\n',
        "tests/trust/test_sessionless.py::test_principals_share_nothing_and_connections_of_one_share",
    ),
    Mutation(
        "regions are their principal's",
        "server/tserver/front/oip/inference.py",
        "return self._regions.of(identity.principal)",
        'return self._regions.of("all")',
        f"{_TEST_REGIONS}::test_a_region_is_its_principal_s_over_both_wires",
    ),
    Mutation(
        "an object has regions of one principal",
        "server/tserver/front/oip/regions.py",
        "if self._every.is_of_another(self._principal, descriptor):",
        "if descriptor < 0:",
        f"{_TEST_REGIONS}::test_an_object_of_another_s_region_is_not_there",
    ),
    # --- sessions that are taken over ---
    Mutation(
        "a session is its principal's",
        _SESSIONS,
        "return session.principal == identity.principal",
        "return bool(session.principal)",
        f"{_TEST_ATTACH}::test_stolen_credentials_name_a_session_that_never_was",
    ),
    Mutation(
        "only its principal takes it over with a secret of before",
        _SESSIONS,
        "if session is None or not _is_of(session, identity):",
        "if session is None:",
        f"{_TEST_ATTACH}::test_neither_do_credentials_from_before_it_was_taken_over",
    ),
    Mutation(
        "to others it was not taken over",
        _SESSIONS,
        "if successor is not None and _is_of(successor, identity):",
        "if successor is not None:",
        f"{_TEST_ATTACH}::test_neither_do_credentials_from_before_it_was_taken_over",
    ),
    Mutation(
        "to others it never ended",
        _SESSIONS,
        "if principal and principal == identity.principal:",
        "if principal:",
        f"{_TEST_ATTACH}::test_credentials_do_not_outlive_their_session",
    ),
    Mutation(
        "who had a session is fenced",
        "server/tserver/session/session.py",
        "            self._let_go(taken_over())\n",
        "",
        "tests/sessions/test_attach.py::test_streams_of_the_first_end",
    ),
    Mutation(
        "credentials that others may read are not taken",
        "client/tclient/_session/credentials.py",
        "stat.S_IMODE(mode) & (stat.S_IRWXG | stat.S_IRWXO)",
        "stat.S_IMODE(mode) & stat.S_IRWXO",
        "tests/sessions/test_attach.py::test_credentials_hide_their_secret_and_travel_as_text",
    ),
    Mutation(
        "credentials are printed without their secret",
        "client/tclient/_session/credentials.py",
        "secret: bytes = field(repr=False)",
        "secret: bytes",
        "tests/sessions/test_attach.py::test_credentials_hide_their_secret_and_travel_as_text",
    ),
    # --- what is kept on disk ---
    Mutation(
        "names are their principal's",
        _PATHS,
        "    quoted = _quoted(principal)\n",
        '    quoted = "all"\n',
        f"{_TEST_KEPT}::test_another_s_name_does_not_exist",
    ),
    Mutation(
        "a name is one part of a path",
        _PATHS,
        'quote(name, safe="", errors="surrogatepass")',
        'quote(name, safe="/", errors="surrogatepass")',
        f"{_TEST_KEPT}::test_no_name_leads_out_of_its_folder",
    ),
    Mutation(
        "and neither a dot nor two",
        _PATHS,
        'return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted',
        "return quoted",
        f"{_TEST_KEPT}::test_no_name_leads_out_of_its_folder",
    ),
    Mutation(
        "what is read is what was written",
        _STORE,
        "if digest.hexdigest() != said:",
        "if not said:",
        f"{_TEST_STORE}::test_what_is_damaged_is_told_by_name_and_others_are_not_affected",
    ),
    Mutation(
        "so is what is said of it",
        _STORE,
        "if said != files.digest_of(manifest):",
        "if not said:",
        f"{_TEST_STORE}::test_what_is_damaged_is_told_by_name_and_others_are_not_affected",
    ),
    Mutation(
        "a manifest names files beside it alone",
        _STORE,
        "if not isinstance(file, str) or _ON_DISK.fullmatch(file) is None:",
        "if not isinstance(file, str):",
        f"{_TEST_STORE}::test_a_file_that_a_manifest_puts_elsewhere_is_not_read",
    ),
    Mutation(
        "what a newer server kept is not guessed at",
        _STORE,
        "version > FORMAT_VERSION",
        "version < 0",
        f"{_TEST_STORE}::test_what_a_newer_server_kept_is_refused_in_words",
    ),
    Mutation(
        "no file is read through a link",
        _FILES,
        "os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)",
        "os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)",
        f"{_TEST_STORE}::test_what_is_damaged_is_told_by_name_and_others_are_not_affected",
    ),
    Mutation(
        "no folder is entered through one",
        _FILES,
        "return stat.S_ISDIR(os.lstat(path).st_mode)",
        "return stat.S_ISDIR(os.stat(path).st_mode)",
        f"{_TEST_STORE}::test_a_folder_that_is_a_link_is_not_followed",
    ),
    Mutation(
        "files are private",
        _FILES,
        "PRIVATE_FILE = 0o600",
        "PRIVATE_FILE = 0o644",
        f"{_TEST_STORE}::test_nobody_else_reads_what_is_kept",
    ),
    Mutation(
        "folders are private",
        _FILES,
        "os.mkdir(path, PRIVATE_FOLDER)",
        "os.mkdir(path)",
        f"{_TEST_STORE}::test_nobody_else_reads_what_is_kept",
    ),
    Mutation(
        "so is what an earlier version left open",
        "server/tserver/storage/directory.py",
        "            files.tighten(path / room)\n",
        "",
        f"{_TEST_STORE}::test_what_others_could_read_they_cannot_after_a_start",
    ),
    Mutation(
        "bytes are on disk before they have a name",
        _FILES,
        "        os.fsync(descriptor)\n    finally:\n        os.close(descriptor)\n    return Written",
        "    finally:\n        os.close(descriptor)\n    return Written",
        f"{_TEST_STORE}::test_bytes_are_on_disk_before_they_have_a_name",
    ),
    Mutation(
        "what is kept is bounded",
        _STORE,
        "        self._check(principal, used, Use(size_bytes, 1 - replaced.names))\n",
        "",
        f"{_TEST_STORE}::test_what_would_be_too_much_is_refused_before_it_is_written",
    ),
    Mutation(
        "and so is how much is kept at once",
        _STORAGE_CALLS,
        "if self._under_way[principal] >= _MOST_AT_ONCE:",
        "if self._under_way[principal] < 0:",
        f"{_TEST_WAITING}::test_a_caller_keeps_so_many_at_once_and_no_more",
    ),
    Mutation(
        "by callers who leave, too",
        _STORAGE_CALLS,
        "return await asyncio.shield(task)",
        "return await task",
        f"{_TEST_WAITING}::test_what_a_caller_does_not_wait_for_counts_until_it_is_done",
    ),
    # --- sessions on disk ---
    Mutation(
        "a kept session of another does not exist",
        "server/tserver/session/keeping.py",
        "return head if head.principal == principal and head.expires_unix_s > time.time() else None",
        "return head if head.expires_unix_s > time.time() else None",
        f"{_TEST_KEEPING}::test_a_kept_session_of_another_does_not_exist",
    ),
    Mutation(
        "the lease of a session goes on on disk",
        "server/tserver/session/keeping.py",
        "return head if head.principal == principal and head.expires_unix_s > time.time() else None",
        "return head if head.principal == principal else None",
        f"{_TEST_KEEPING}::test_the_lease_goes_on_on_disk",
    ),
    Mutation(
        "what is known of a session is what was written",
        "server/tserver/session/keeping.py",
        'if said.pop("sha256", None) != files.digest_of(said):',
        'if not said.pop("sha256", None) and False:',
        f"{_TEST_KEEPING}::test_a_head_that_was_tampered_with_is_a_session_that_is_gone",
    ),
    Mutation(
        "what a session holds is what was written",
        "server/tserver/engine/snapshots/files.py",
        "                tensors.check()\n",
        "                pass\n",
        f"{_TEST_SNAPSHOTS}::test_files_that_were_tampered_with_are_refused",
    ),
    Mutation(
        "no truth of a file is another byte than 0 and 1",
        "server/tserver/engine/snapshots/restoring.py",
        "if dtype is torch.bool and tensor.numel() and int(blob.max()) > 1:",
        "if False:",
        f"{_TEST_SNAPSHOTS}::test_what_was_tampered_with_is_refused",
    ),
    Mutation(
        "a checkpoint is resumed into a session that nobody uses",
        "server/tserver/engines/checkpoints.py",
        "if held.objects or held.operations or session.received:",
        "if False:",
        f"{_TEST_RESUMING}::test_a_session_in_use_is_not_filled",
    ),
    # --- limits ---
    Mutation(
        "calls of a full server",
        "server/tserver/engine/apply.py",
        "if store.room.is_full and takes_memory(operation):",
        "if False:",
        "tests/limits/test_memory.py::test_calls_of_other_sessions_that_take_memory_are_refused_too",
    ),
    Mutation(
        "what a message may be out of its compression",
        "server/tserver/front/oip/listener.py",
        "listeners.options(max_message_bytes(config), _PART_OF_FILES)",
        "listeners.options((1 << 31) - 1, _PART_OF_FILES)",
        "tests/limits/test_oip.py::test_a_flood_of_compressed_messages_does_not_end_the_server[larger]",
    ),
    Mutation(
        "messages that are taken at once",
        _GATE,
        "            await self._free.acquire()\n",
        "            await asyncio.sleep(0)\n",
        f"{_TEST_GATE}::test_no_more_messages_are_asked_for_at_once_than_there_is_memory_for",
    ),
    Mutation(
        "requests under way together",
        _GATE,
        "if self._held_bytes and self._held_bytes + size > self._total_bytes:",
        "if size < 0:",
        f"{_TEST_GATE}::test_all_requests_under_way_are_bounded_together",
    ),
    Mutation(
        "streams that may each bring a message",
        _GATE,
        "if self._streams >= self.turns:",
        "if self._streams < 0:",
        f"{_TEST_GATE}::test_streams_are_bounded_as_each_may_bring_a_message",
    ),
    Mutation(
        "sessions of a principal",
        _SESSIONS,
        'account.check("sessions", ',
        'account.check("models", ',
        f"{_TEST_LIMITS}::test_one_principal_does_not_take_all_sessions",
    ),
    Mutation(
        "streams of a principal",
        _ACCOUNT,
        "if limit and self.streams >= limit:",
        "if limit < 0:",
        f"{_TEST_LIMITS}::test_one_principal_does_not_open_streams_without_end",
    ),
    Mutation(
        "rates over a lane",
        "server/tserver/session/batch_lane.py",
        "return not session.must_wait(self.look_again)",
        "return True",
        f"{_TEST_LIMITS}::test_who_sends_over_a_lane_is_made_to_wait_too",
    ),
    Mutation(
        "time of the engine",
        "server/tserver/engine/engine.py",
        "(resumes_at := account.resumes_at())",
        "(resumes_at := 0.0)",
        f"{_TEST_LIMITS}::test_who_has_used_its_time_of_the_engine_waits_and_others_go_on",
    ),
    # --- what is open when credentials end ---
    Mutation(
        "revoked: all that is open is ended",
        _OPENED,
        "(time.time() < identity.expires and self._holds(identity))",
        "time.time() < identity.expires",
        f"{_TEST_REVOKED}::test_what_is_open_ends_within_a_second_of_the_revocation[guarded]",
    ),
    Mutation(
        "revoked: the engines of a house know it, too",
        "server/tserver/credentials/tokens.py",
        "if token is None or token.revoked:",
        "if token is None:",
        f"{_TEST_REVOKED}::test_what_is_open_ends_within_a_second_of_the_revocation[house]",
    ),
    Mutation(
        "over: all that is open is ended",
        _OPENED,
        "(time.time() < identity.expires and self._holds(identity))",
        "self._holds(identity)",
        f"{_TEST_REVOKED}::test_what_is_open_ends_with_the_time_of_a_token",
    ),
    Mutation(
        "revoked: RPCs under way",
        "server/tserver/front/interceptor.py",
        "if not identity.expires:\n            return await behaviour",
        "if identity:\n            return await behaviour",
        f"{_TEST_REVOKED}::test_a_download_ends_whose_reader_is_slow",
    ),
    Mutation(
        "revoked: connections of the data endpoint",
        _DATA_ENDPOINT,
        "and self._opened.add(connection.socket, identity)",
        "and identity",
        f"{_TEST_REVOKED}::test_what_is_open_ends_within_a_second_of_the_revocation[guarded]",
    ),
    Mutation(
        "revoked: a ticket that was given before",
        _OPENED,
        "        return self._still(identity)\n",
        "        return True\n",
        f"{_TEST_REVOKED}::test_a_ticket_is_no_good_once_its_caller_is_not_known_any_more",
    ),
    Mutation(
        "revoked: a client without another token is told",
        "client/tclient/_transport/stream.py",
        " or now < self._renewed_at + _STOOD_S:",
        ":",
        f"{_TEST_RENEWED}::test_a_function_whose_tokens_are_all_refused_is_not_asked_for_ever",
    ),
    Mutation(
        "over: what a certificate has opened",
        "server/tserver/front/authentication.py",
        "is_loopback(peer), expires=ends)",
        "is_loopback(peer))",
        "tests/trust/test_certificates.py::test_what_is_open_ends_with_the_certificate",
    ),
    # --- JSON Web Tokens ---
    Mutation(
        "JWT: signed by the issuer",
        _JWKS,
        "options=_OPTIONS,",
        'options={**_OPTIONS, "verify_signature": False},',
        f"{_TEST_JWT}::test_another_token_is_refused_without_a_reason[another key]",
    ),
    Mutation(
        "JWT: not by a secret that both sides have",
        _JWKS,
        '("RSA", ""): "RS256",',
        '("RSA", ""): "RS256", ("oct", ""): "HS256",',
        f"{_TEST_JWT}::test_another_token_is_refused_without_a_reason[a secret that is in the file]",
    ),
    Mutation(
        "JWT: from this issuer",
        _JWKS,
        "issuer=self._issuer,",
        "",
        f"{_TEST_JWT}::test_another_token_is_refused_without_a_reason[another issuer]",
    ),
    Mutation(
        "JWT: for this audience",
        _JWKS,
        "audience=self._audience,\n                options=_OPTIONS,",
        'options={**_OPTIONS, "verify_aud": False},',
        f"{_TEST_JWT}::test_another_token_is_refused_without_a_reason[another audience]",
    ),
    Mutation(
        "JWT: not over",
        _JWKS,
        '"verify_iat": False',
        '"verify_exp": False',
        f"{_TEST_JWT}::test_another_token_is_refused_without_a_reason[expired]",
    ),
    Mutation(
        "JWT: with an end",
        _JWKS,
        '"require": ["exp", "sub"]',
        '"require": ["sub"]',
        f"{_TEST_JWT}::test_another_token_is_refused_without_a_reason[no end]",
    ),
    Mutation(
        "JWT: what is open ends with the key",
        _JWKS,
        "any(key.digest == identity.credential for key in self._keys.values())",
        "True",
        f"{_TEST_JWT}::test_a_session_ends_with_its_token_and_with_its_key",
    ),
    # --- tickets ---
    Mutation(
        "a ticket is good once",
        _DATA_ENDPOINT,
        "found = self._tickets.pop(ticket, None)\n        if found",
        "found = self._tickets.get(ticket)\n        if found",
        f"{_TEST_TICKETS}::test_a_ticket_that_was_used_is_no_good_again",
    ),
    Mutation(
        "a ticket is good from the host that it was given to",
        _DATA_ENDPOINT,
        "if (host := _host_of(connection)) == identity.host:",
        "if (host := _host_of(connection)):",
        f"{_TEST_TICKETS}::test_a_ticket_is_no_good_from_another_host",
    ),
    Mutation(
        "sessions of a principal in a house",
        "server/tserver/front/house_limits.py",
        '            account.check("sessions", opened.most)\n',
        "",
        f"{_TEST_HOUSE}::test_a_principal_has_so_many_sessions_of_all_engines_and_no_more",
    ),
    Mutation(
        "memory of a principal in other engines of a house",
        "server/tserver/front/house_service.py",
        "account.elsewhere = size, tensors",
        "account.elsewhere = 0, 0",
        f"{_TEST_HOUSE}::test_a_principal_holds_no_more_in_all_engines_than_it_may",
    ),
    Mutation(
        "streams of a principal through the front of a house",
        "server/tserver/front/many.py",
        "            accounts=limits.accounts,\n",
        "",
        f"{_TEST_HOUSE}::test_streams_through_the_front_are_counted_there",
    ),
    Mutation(
        "sessions on disk count for whose they are",
        "server/tserver/session/keeping.py",
        "        self._waiting = waiting\n",
        "",
        f"{_TEST_KEEPING}::test_those_that_wait_are_counted_for_whose_they_are",
    ),
    Mutation(
        "principals that metrics tell apart",
        "server/tserver/front/principal_metrics.py",
        "if place < MOST else OTHER",
        "if place >= 0 else OTHER",
        f"{_TEST_QUOTAS}::test_metrics_tell_of_each_principal_and_of_no_more_than_a_hundred",
    ),
    Mutation(
        "bytes of uploads and downloads",
        "server/tserver/session/session.py",
        "            account.take(0, size_bytes)\n",
        "            pass\n",
        f"{_TEST_LIMITS}::test_bytes_that_are_uploaded_and_downloaded_are_part_of_the_rate",
    ),
    Mutation(
        "memory of all sessions of a principal",
        _OBJECTS,
        "                self.account.check_memory(grown)\n",
        "                pass\n",
        f"{_TEST_QUOTAS}::test_all_sessions_of_a_principal_hold_no_more_than_it_may",
    ),
    Mutation(
        "tensors of a principal",
        _ACCOUNT,
        'return "tensors" if',
        'return "" if',
        f"{_TEST_QUOTAS}::test_a_principal_has_no_more_tensors_than_it_may",
    ),
    Mutation(
        "uploads of a principal",
        _OBJECTS,
        "                self.account.check_memory(more_bytes=size)\n",
        "                pass\n",
        f"{_TEST_QUOTAS}::test_an_upload_counts_from_its_beginning",
    ),
    Mutation(
        "what a session leaves to others counts for them",
        _OBJECTS,
        "            reader.recount()\n",
        "            pass\n",
        f"{_TEST_QUOTAS}::test_what_a_principal_lets_go_it_gets_back[shared]",
    ),
    Mutation(
        "models of a principal",
        "server/tserver/models/registry.py",
        "            room(sum(is_of(each, owner) for each in self.index()))\n",
        "",
        f"{_TEST_QUOTAS}::test_a_principal_registers_no_more_models_than_it_may",
    ),
    Mutation(
        "names of a principal on disk",
        "server/tserver/engines/disk_use.py",
        '.check("disk_bytes", used.size_bytes + own, asked.size_bytes)',
        "",
        f"{_TEST_QUOTAS}::test_a_principal_keeps_no_more_on_disk_than_it_may",
    ),
    Mutation(
        "models of a principal on disk",
        "server/tserver/models/disk.py",
        "            self.check(private, len(data))\n",
        "            pass\n",
        f"{_TEST_QUOTAS}::test_a_principal_keeps_no_more_on_disk_than_it_may",
    ),
    # --- what one principal shares with another ---
    Mutation(
        "a grant is for who is named",
        "server/tserver/engine/moving.py",
        " or loan.to != store.principal:",
        ":",
        f"{_TEST_SHARING}::test_nobody_else_has_it_also_with_the_secret",
    ),
    Mutation(
        "its owner alone revokes it",
        "server/tserver/engine/moving.py",
        "if loan.terms is None or loan.lender() is not store:",
        "if loan.terms is None:",
        f"{_TEST_SHARING}::test_nobody_else_has_it_also_with_the_secret",
    ),
    Mutation(
        "who has it does not hand it on",
        "server/tserver/engine/moving.py",
        "if lending.terms_of(store, tensor) or (how and lending.is_borrowed(store, tensor)):",
        "if not tensors:",
        f"{_TEST_SHARING}::test_who_has_it_does_not_hand_it_on",
    ),
    Mutation(
        "it is written to where that was allowed",
        "server/tserver/engine/lending.py",
        "or not may_write(store, tensor)",
        "or False",
        f"{_TEST_SHARING}::test_it_is_written_to_where_that_was_allowed_and_only_there",
    ),
    Mutation(
        "no kernel sees what is revoked",
        "server/tserver/engine/lending.py",
        "        self.check([list(args), named])\n",
        "",
        f"{_TEST_SHARING}::test_it_is_gone_once_it_is_revoked",
    ),
    Mutation(
        "who calls an RPC is asked",
        "server/tserver/front/interceptor.py",
        "partial(Rpc, **knowing) if is_ours",
        "partial(Rpc, key=self._key) if is_ours",
        "tests/trust/test_every_rpc.py::test_no_rpc_answers_who_has_no_valid_credentials",
    ),
    Mutation(
        "who calls a stream is asked",
        "server/tserver/front/interceptor.py",
        "partial(CountedRpc, **knowing, counts=counts)",
        "partial(CountedRpc, key=self._key, counts=counts)",
        "tests/trust/test_every_rpc.py::test_no_rpc_answers_who_has_no_valid_credentials",
    ),
    Mutation(
        "who asks for reflection is asked",
        "server/tserver/front/interceptor.py",
        "        identified(context, self._authenticator)\n        return context",
        "        return context",
        "tests/trust/test_every_rpc.py::test_no_rpc_answers_who_has_no_valid_credentials",
    ),
    Mutation(
        "who calls over HTTP is asked",
        "server/tserver/front/interceptor.py",
        "            if route.needs is not None:\n                headers",
        "            if False:\n                headers",
        "tests/trust/test_every_rpc.py::test_no_path_of_http_answers_who_has_no_valid_credentials",
    ),
    Mutation(
        "no word for another process of a house without its key",
        "server/tserver/front/rpc.py",
        'return sent if hmac.compare_digest(sent.get(HOUSE_KEY, b""), key.encode()) else None',
        "return sent or None",
        "tests/trust/test_every_rpc.py::test_no_rpc_answers_who_has_no_valid_credentials",
    ),
    Mutation(
        "strangers do not fill the disk with lines",
        "server/tserver/audit.py",
        "self._refused > _REFUSED_PER_S",
        "self._refused > 1 << 40",
        "tests/trust/test_audit.py::test_strangers_do_not_fill_the_disk",
    ),
    Mutation(
        "lines of the audit log are short",
        "server/tserver/audit.py",
        "value[:_MAX_TEXT] if",
        "value if",
        "tests/trust/test_audit.py::test_a_name_can_break_no_line_and_is_cut",
    ),
    Mutation(
        "no link leads the audit log elsewhere",
        "server/tserver/audit.py",
        " | os.O_NOFOLLOW",
        "",
        "tests/trust/test_audit.py::test_a_link_in_its_place_is_not_followed",
    ),
    Mutation(
        "the audit log is private",
        "server/tserver/audit.py",
        "os.O_NOFOLLOW, 0o600)",
        "os.O_NOFOLLOW, 0o644)",
        "tests/trust/test_audit.py::test_the_file_is_private_and_may_be_moved_away",
    ),
    Mutation(
        "a session's secret is told by a digest",
        "server/tserver/session/secret.py",
        "return hashlib.sha256(secret).hexdigest()[:_ID_LETTERS]",
        "return secret.hex()",
        "tests/trust/test_secrets.py::test_no_secret_is_in_the_audit_log",
    ),
    Mutation(
        "no TLS of the past",
        "server/tserver/front/certificates.py",
        "context.minimum_version = ssl.TLSVersion.TLSv1_2",
        'context.minimum_version = ssl.TLSVersion.TLSv1\n            context.set_ciphers("ALL:@SECLEVEL=0")',
        "tests/trust/test_tls.py::test_downgraded_tls_is_refused_on_every_port",
    ),
    Mutation(
        "what is no message, or nested without end, is refused",
        "server/tserver/front/binding.py",
        "except DecodeError as error:",
        "except ZeroDivisionError as error:",
        "tests/contract/test_garbage.py::test_absurd_nesting_is_refused",
    ),
    Mutation(
        "a body of HTTP says how large it is",
        "server/tserver/front/http/messages.py",
        "if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):",
        "if False:",
        "tests/front/test_http.py::test_a_length_that_is_too_large_is_refused_before_the_body_comes",
    ),
    Mutation(
        "a little of HTTP does not become much",
        "server/tserver/front/http/messages.py",
        "if len(found) + len(plain) > limit:",
        "if False:",
        "tests/front/test_http.py::test_a_little_that_becomes_much_is_refused_while_it_does",
    ),
    Mutation(
        "who says nothing over HTTP is let go",
        "server/tserver/front/http/listener.py",
        "keepalive_timeout=limits.idle_s",
        "keepalive_timeout=600.0",
        "tests/front/test_http.py::test_a_connection_that_was_served_is_closed_later",
    ),
    Mutation(
        "connections of HTTP are bounded",
        "server/tserver/front/http/listener.py",
        "if len(self._connections) >= self._max_connections:",
        "if False:",
        "tests/front/test_http.py::test_among_too_many_connections_the_one_that_asks_for_nothing_the_longest_goes",
    ),
    Mutation(
        "no page in a browser asks",
        "server/tserver/front/http/messages.py",
        'if "Origin" in request.headers:',
        "if False:",
        "tests/front/test_http.py::test_a_page_in_a_browser_is_refused",
    ),
    Mutation(
        "a foreign name for this machine opens no page",
        "server/tserver/front/page/routes.py",
        "if request.identity.how != LOCAL:",
        "if True:",
        "tests/page/test_api.py::test_a_foreign_name_for_this_machine_opens_nothing",
    ),
    Mutation(
        "the page shows callers their own sessions alone",
        "server/tserver/identity.py",
        "return self.role >= Role.ADMIN or principal == self.principal",
        "return True",
        "tests/page/test_api.py::test_each_sees_its_own_and_an_administrator_all",
    ),
    Mutation(
        "who connects to gRPC and says nothing is let go",
        "server/tserver/front/listeners.py",
        '("grpc.server_handshake_timeout_ms", 5_000)',
        '("grpc.server_handshake_timeout_ms", 600_000)',
        "tests/trust/test_connections.py::test_silent_connections_on_every_port_keep_nobody_out_for_long",
    ),
    Mutation(
        "a stream says something",
        "server/tserver/front/rpc.py",
        "async with asyncio.timeout(_FIRST_S):",
        "async with asyncio.timeout(None):",
        "tests/trust/test_connections.py::test_a_stream_on_which_nothing_is_said_ends",
    ),
    Mutation(
        "who comes without a ticket gets no answer",
        "server/tserver/front/data_endpoint.py",
        "        if found is None:\n            return None\n        key,",
        "        found = found or (b'', Transfer(0, self.stop), Identity(''))\n        key,",
        "tests/bulk/test_data_endpoint.py::test_whoever_has_no_ticket_gets_no_answer",
    ),
    Mutation(
        "who has a ticket has its key",
        "server/tserver/front/data_endpoint.py",
        'said.proves(connection.read(said.PROOF_BYTES, said.STALL_S) or b"", key, "client", nonces)',
        "connection.read(said.PROOF_BYTES, said.STALL_S)",
        "tests/bulk/test_data_endpoint.py::test_whoever_has_a_ticket_without_its_key_gets_nothing",
    ),
    Mutation(
        "no name of a principal forges a line of a log",
        "server/tserver/credentials/names.py",
        "if name.strip() != name or any",
        "if name.strip() != name and any",
        "tests/trust/test_tokens.py::test_a_name_that_could_be_taken_for_something_else_is_refused",
    ),
    Mutation(
        "bodies of HTTP are bounded together",
        "server/tserver/front/http/listener.py",
        "if self._held_bytes + size_bytes > self._limits.held_bytes:",
        "if False:",
        "tests/front/test_http.py::test_bodies_that_are_too_many_at_once_are_refused",
    ),
    Mutation(
        "an error does not say what it was given",
        _SESSIONS,
        'raise Unauthenticated("no session has this secret; open a session")',
        'raise Unauthenticated(f"no session has this secret ({secret!r}); open a session")',
        "tests/trust/test_secrets.py::test_no_secret_is_in_an_error_or_in_what_is_printed",
    ),
    Mutation(
        "the key of a house is no argument",
        "server/tserver/supervisor/engines.py",
        'front.send({"is": "house", "key": self._key})',
        'front.send({"is": "house", "key": self._key}); import subprocess, sys; '
        'subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", self._key])',
        "tests/trust/test_secrets.py::test_no_secret_is_shown_by_the_processes",
    ),
    Mutation(
        "streams of a connection are bounded",
        "server/tserver/front/listeners.py",
        '("grpc.max_concurrent_streams", _MAX_STREAMS)',
        '("grpc.max_concurrent_streams", 1 << 30)',
        "tests/trust/test_every_port.py::test_a_connection_may_have_so_many_streams_and_no_more",
    ),
    Mutation(
        "headers of gRPC are bounded",
        "server/tserver/front/listeners.py",
        '("grpc.max_metadata_size", 16 << 10)',
        '("grpc.max_metadata_size", 16 << 20)',
        "tests/trust/test_every_port.py::test_headers_of_grpc_are_bounded",
    ),
    Mutation(
        "a little that becomes much is refused on every port of gRPC",
        "server/tserver/front/listeners.py",
        '("grpc.max_receive_message_length", max_message_bytes)',
        '("grpc.max_receive_message_length", -1)',
        "tests/trust/test_every_port.py::test_a_little_that_becomes_much_is_refused_before_it_does",
    ),
    Mutation(
        "JSON is not nested without end",
        "server/tserver/front/http/messages.py",
        "except (ValueError, RecursionError) as error:",
        "except ValueError as error:",
        "tests/trust/test_every_port.py::test_json_is_not_nested_without_end",
    ),
    Mutation(
        "no name tells a terminal what to do",
        "server/tserver/logs.py",
        "return line if line.isprintable() else json",
        "return line if line else json",
        "tests/trust/test_every_port.py::test_no_name_forges_a_line_of_the_log",
    ),
    Mutation(
        "no path leads out of the model directory",
        "server/tserver/models/store.py",
        "if not found.is_relative_to(root):",
        "if not found:",
        "tests/models/test_weights_files.py::test_a_path_that_is_no_file_of_the_directory_is_refused",
    ),
]
