#!/bin/sh
# Set up and run all tests: lint, types, and pytest. As root on Debian it also installs and starts a
# real Slurm, Grid Engine and OAR on loopback (tests/clusters) and runs the tests on them as an
# ordinary user, since root is not who uses a cluster. Elsewhere those tests are skipped, with a line
# that says so. An ipyparallel cluster is started anywhere.
# With HPCPIPE_TEST_STRICT=1 nothing may be skipped.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
as_user=

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  # Debian's own Python: an ordinary user must be able to run it, which one under /root is not.
  dpkg-query -W python3-venv >/dev/null 2>&1 || {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv >/dev/null
  }
  # SPM's batches are read by real Octave.
  command -v octave-cli >/dev/null || {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends octave >/dev/null
  }
  # CPython's own tests of executors are run on hpcpipe's.
  dpkg-query -W libpython3.11-testsuite >/dev/null 2>&1 || {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libpython3.11-testsuite >/dev/null
  }
  # The scheduler that docs/adding.rst adds is tried on a real one.
  command -v tsp >/dev/null || {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends task-spooler >/dev/null
  }
  # They complete what is typed, as bash does.
  command -v zsh >/dev/null && command -v fish >/dev/null || {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends zsh fish >/dev/null
  }
  PYTHON=/usr/bin/python3
  eval "$(tests/clusters/slurm.sh up)"
  eval "$(tests/clusters/sge.sh up)"
  eval "$(tests/clusters/oar.sh up)"
  home=$(getent passwd "$HPCPIPE_TEST_USER" | cut -d: -f6)
  # The tests work on a copy that belongs to that user; the checkout may be where it cannot look.
  copy=$(mktemp -d /tmp/hpcpipe-tests.XXXXXX)
  trap 'rm -rf "$copy"' EXIT
  tar -cf - --exclude=.venv --exclude=.git --exclude=./build --exclude=norm_workdir . | tar -xf - -C "$copy"
  chown -R "$HPCPIPE_TEST_USER" "$copy"
  cd "$copy"
  # A shell lets what runs beside it ignore Ctrl-C, and nohup the hang-up: tests send both.
  as_user="runuser -u $HPCPIPE_TEST_USER -- env --default-signal=INT,QUIT,HUP HOME=$home"
else
  echo "not root on Debian: no scheduler is started; tests that need one are skipped unless it answers"
  trap 'tests/clusters/ipyparallel.sh down' EXIT
fi

VENV=${VENV:-$PWD/.venv}
[ -x "$VENV/bin/python" ] || $as_user "$PYTHON" -m venv "$VENV"
$as_user "$VENV/bin/pip" install -q -e ".[dev]" -r examples/normalize/requirements.txt
$as_user "$VENV/bin/ruff" check .
$as_user "$VENV/bin/ruff" format --check -q .
$as_user "$VENV/bin/mypy"
# Its engines run the very code that is tested: it is nobody else's, and goes with it.
export HPCPIPE_TEST_IPYPARALLEL_DIR="$VENV/ipyparallel"
trap 'tests/clusters/ipyparallel.sh down; rm -rf "${copy:-}"' EXIT
eval "$(PYTHON=$VENV/bin/python tests/clusters/ipyparallel.sh up)"
tests() { PATH="$VENV/bin:$PATH" $as_user "$VENV/bin/python" -m pytest "$@"; }
[ -n "$as_user" ] && [ $# = 0 ] || { tests "$@"; exit; }

# Schedulers are waited for most of the time: their tests run beside those that need the CPU. What
# shares a scheduler is in one part, since a test may stop it.
sge="sge or drmaa" slurm="slurm or ipyparallel"
running=
part() {  # NAME WORDS FOR PYTEST
  name=$1
  shift
  tests "$@" >"$copy/$name.log" 2>&1 &
  running="$running $!"
}
part sge -m "$sge"
part oar -m oar
part slurm -m "$slurm"
part others -m "not ($sge or oar or $slurm)" tests/contract
failed=0
tests -m "not ($sge or oar or $slurm)" --ignore tests/contract || failed=$?
for part in $running; do wait "$part" || failed=$?; done
cat "$copy"/*.log
exit $failed
