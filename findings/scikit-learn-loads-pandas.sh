#!/usr/bin/env bash
# scikit-learn 1.9.1 beside pandas 3.1.1 (Python 3.11).
#
# Importing one estimator of scikit-learn loads all of pandas where pandas is installed, though no
# table is used and scikit-learn does not depend on it. A program that starts often pays about a
# second for it, and an environment that gains pandas through some other package starts slower than
# before. Import scikit-learn where it fits something, not at the top of a module.
#
# Seen: without pandas: loaded False; with pandas: loaded True.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
pip() { "$place/env/bin/python" -m pip --disable-pip-version-check install -q "$@" 2>/dev/null; }
look() {
    "$place/env/bin/python" -c "
import sys
import sklearn
from sklearn.isotonic import IsotonicRegression
print(f'scikit-learn {sklearn.__version__}, $1: loaded', 'pandas' in sys.modules)"
}
pip scikit-learn==1.9.1
without=$(look "without pandas")
pip pandas==3.1.1
with=$(look "with pandas")
printf '%s\n%s\n' "$without" "$with"
[[ $without == *"loaded False" && $with == *"loaded True" ]] || { echo "changed"; exit 1; }
