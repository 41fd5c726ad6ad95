# shellcheck shell=bash
# What the job scripts share. They call:  source train/slurm/job.sh, with a training command as arguments.
#
# Each node runs torchrun once, which starts a process for each GPU. Before the time runs out (#SBATCH --signal) all
# processes save after a whole step and end, and the job is put into the queue again. It then continues (--resume auto).
# A job that is preempted or whose node dies is put back by SLURM itself (#SBATCH --requeue) and continues as well.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
source train/setup.sh
[ $# -gt 1 ] || { echo "give a command, such as train.sft --config train/recipes/quickstart.yaml" >&2; exit 2; }

nodes=${SLURM_NNODES:-1}
names=(localhost)
if [ "$nodes" -gt 1 ]; then mapfile -t names < <(scontrol show hostnames "$SLURM_JOB_NODELIST"); fi
# torchrun restarts the processes of a run of which one has died; each attempt gets a store of its own
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

srun --ntasks="$nodes" --ntasks-per-node=1 --kill-on-bad-exit=1 \
  "$PYTHON" -m torch.distributed.run \
  --nnodes "$nodes" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" --max-restarts 3 \
  --rdzv-backend c10d --rdzv-id "${SLURM_JOB_ID:-0}-${SLURM_RESTART_COUNT:-0}" --rdzv-endpoint "${names[0]}:${PORT:-29500}" \
  -m -- "$@" --resume auto &
job=$!

requeue() { # time is nearly out
  echo "$(date) the time of this job is nearly out: it saves, and goes back into the queue"
  trap '' USR1
  kill -TERM "$job" 2>/dev/null || true
  wait "$job" || true
  if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
  else
    scontrol requeue "$SLURM_JOB_ID"
  fi
  exit 0
}
trap requeue USR1
trap 'kill -TERM "$job" 2>/dev/null; wait "$job"' TERM
wait "$job"
