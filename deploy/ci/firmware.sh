#!/bin/sh
# One run of a firmware pipeline: take the device's state, put a new image in, sign, post, wait until the device runs it.
# Both templates beside this file call it; docs/how-to/firmware-from-ci.md explains each variable. Everything that can
# fail stops the run with pvr's own words, and nothing is posted then.
#
#   DEVICE      user/device whose trail is posted to         (needed)
#   APP         the container that gets the new image        (needed)
#   IMAGE       the image: a registry's name, oci-archive:FILE, docker-archive:FILE, ...   (needed)
#   MESSAGE     what the trail says about the revision       (default: the commit that is built)
#   SIGN_KEY    a private key: sign the app and demand that its signature verifies
#   SIGN_CHAIN  the key's certificates, the leaf first
#   SIGN_CA     whom the device trusts
#   WAIT_S      how long the device may take                 (default: 900)
#   DRY_RUN     not empty: show what the post would cost, and stop there
set -eu
: "${DEVICE:?} ${APP:?} ${IMAGE:?}"
message=${MESSAGE:-"$APP: $IMAGE (${CI_COMMIT_SHORT_SHA:-${GITHUB_SHA:-by hand}})"}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pvr clone "$DEVICE" "$work/state"
cd "$work/state"
if [ -d "$APP" ]; then
    pvr app update "$APP" --from "$IMAGE"
else
    pvr app add "$APP" --from "$IMAGE"
fi
pvr add
pvr commit --message "$message"
if [ -n "${SIGN_KEY:-}" ]; then
    pvr sig --key "$SIGN_KEY" --x5c "${SIGN_CHAIN:-no}" add --part "$APP"
    pvr add
    pvr commit --message "$message"
    pvr sig --cacerts "${SIGN_CA:?names whom the device trusts}" ls "$APP" >/dev/null
fi
pvr show "$DEVICE" HEAD
pvr plan
if [ -n "${DRY_RUN:-}" ]; then
    exit 0
fi
pvr post --message "$message" --wait "${WAIT_S:-900}"
