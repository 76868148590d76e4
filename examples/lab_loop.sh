#!/usr/bin/env bash
# A robot in a lab finds the settings of an instrument: it asks what to try, measures, reports on
# the way, and tells what came out. No Python: bash, awk and bbmmopt.
#
#   examples/lab_loop.sh                      # 15 trials, in lab.db
#   examples/lab_loop.sh study.db 30
#   examples/lab_loop.sh postgresql+psycopg://lab@host/studies 30
#
# Kill it whenever you like, and start it again: nothing told is lost, and the robot is given the
# trial again that it was at. A second robot, WORKER=robot-2 on the same storage, shares the work.
set -euo pipefail

export BBMMOPT_STORAGE=${1:-lab.db} # every bbmmopt below works on it
trials=${2:-15}
worker=${WORKER:-robot-1}
cycles=3

# What bbmmopt tells us, by eval: ask and report print such lines with --shell.
declare number param_temperature param_flow param_solvent should_stop reason

measure() { # measure TEMPERATURE FLOW SOLVENT CYCLE: the signal, which builds up with the cycles
  awk -v t="$1" -v flow="$2" -v solvent="$3" -v cycle="$4" 'BEGIN {
    if (t > 75 && flow < 0.5) { print "a bubble in the cell" > "/dev/stderr"; exit 1 }
    shape = exp(-((t - 62) / 15) ^ 2 - ((log(flow) - log(1.5)) / 0.8) ^ 2)
    printf "%.6f\n", (solvent == "methanol" ? 1 : 0.7) * shape * (1 - exp(-cycle))
  }' 2>&1
}

ended() { bbmmopt trials --json --state complete --state failed --state pruned | wc -l; }

# Does nothing where the study is there already.
bbmmopt create --maximize signal --noise none --seed 1 --early-stopping median --space '{
  "temperature": {"real": [20, 95]},
  "flow": {"real": [0.1, 5], "log": true},
  "solvent": {"categorical": ["water", "methanol"]}
}'

while (($(ended) < trials)); do
  asked=$(bbmmopt ask --worker "$worker" --shell) # by itself: in eval, its failure would be lost
  eval "$asked"
  echo "trial $number: $param_temperature degrees, $param_flow ml/min, $param_solvent"

  should_stop=false
  for ((cycle = 1; cycle <= cycles; cycle++)); do
    if ! signal=$(measure "$param_temperature" "$param_flow" "$param_solvent" "$cycle"); then
      echo "  failed: $signal"
      bbmmopt tell "$number" --failed "$signal" >/dev/null
      continue 2
    fi
    reported=$(bbmmopt report "$number" "$cycle" "$signal" --shell)
    eval "$reported"
    echo "  cycle $cycle: $signal"
    if [ "$should_stop" = true ]; then
      bbmmopt tell "$number" --pruned "$reason" >/dev/null
      continue 2
    fi
  done
  bbmmopt tell "$number" "$signal" >/dev/null
done

bbmmopt best
bbmmopt export -o lab.csv
echo "all $(ended) trials are in lab.csv"
