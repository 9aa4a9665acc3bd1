"""The completion of `multihot` in a shell."""

import subprocess

import shtab

from multihot.completion import whole_parser


def test_a_shell_completes_commands_flags_and_files(tmp_path):
    script = tmp_path / "multihot.bash"
    script.write_text(
        shtab.complete(whole_parser(), shell="bash")
        + """
complete_words() {
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
  _shtab_multihot
  echo "${COMPREPLY[@]}"
}
complete_words multihot ev
complete_words multihot evaluate --base
complete_words multihot train --config docstr
"""
    )
    (tmp_path / "docstrings.yaml").touch()
    ended = subprocess.run(["bash", script], cwd=tmp_path, capture_output=True, text=True)
    assert ended.stdout.splitlines() == ["evaluate", "--baseline", "docstrings.yaml"]
