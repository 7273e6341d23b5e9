import msgspec

from engine.base import jsonio
from engine.runtime.hooks import KINDS, patience, plan
from engine.spec.runtime import Hook, Hooks, Process, Spec

SPEC = Spec(oci_version="1.2.0", process=Process(cwd="/", args=("true",), env=("A=inside",)))


def _with(hooks: Hooks) -> Spec:
    return msgspec.structs.replace(SPEC, hooks=hooks)


def test_every_kind_of_the_specification_is_known() -> None:
    assert sorted(KINDS) == sorted(field.encode_name for field in msgspec.structs.fields(Hooks))


def test_the_deprecated_kind_runs_before_its_successor() -> None:
    made = plan(_with(Hooks(create_runtime=(Hook(path="/b"),), prestart=(Hook(path="/a"),))), "/bundle", "id")

    assert [(step.kind, step.path) for step in made.create_runtime] == [
        ("prestart", "/a"),
        ("createRuntime", "/b"),
    ]


def test_only_a_hook_of_the_containers_root_inherits_its_environment() -> None:
    one = (Hook(path="/x"),)
    made = plan(_with(Hooks(create_container=one, start_container=one, poststart=one)), "/bundle", "id")

    assert made.create_container[0].environment is None
    assert made.start_container[0].environment == {b"A": b"inside"}
    assert made.poststart[0].environment is None


def test_a_path_without_arguments_is_its_own_name() -> None:
    [step] = plan(_with(Hooks(prestart=(Hook(path="/x"),))), "/bundle", "id").create_runtime

    assert step.arguments == (b"/x",)


def test_a_document_has_the_pid_that_is_known_when_it_is_told() -> None:
    made = plan(_with(Hooks(poststop=(Hook(path="/x"),))), "/bundle", "id")

    assert jsonio.decode(made.document("creating", 12), dict) == {
        "ociVersion": "1.2.0",
        "id": "id",
        "pid": 12,
        "status": "creating",
        "bundle": "/bundle",
        "annotations": {},
    }
    assert "pid" not in jsonio.decode(made.document("stopped"), dict)


def test_who_runs_hooks_is_waited_for_as_long_as_they_may_take() -> None:
    hooks = Hooks(
        prestart=(Hook(path="/x", timeout=5), Hook(path="/x", timeout=7)), poststop=(Hook(path="/x"),)
    )
    made = plan(_with(hooks), "/bundle", "id")

    assert patience((), 2.0) == 2.0
    assert patience(made.create_runtime, 2.0) == 14.0
    assert patience(made.poststop, 2.0) is None
