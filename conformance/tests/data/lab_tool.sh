#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Every program that the lab calls, in miniature: it is called by another one's name. Call number
# $STOP_AT of them all hangs instead, with a child that hangs too.
tool=${0##*/}
echo "$tool" >>"$ROBUST/calls"
if [ "$(wc -l <"$ROBUST/calls")" = "${STOP_AT:-none}" ]; then
    sleep 600 &
    : >"$ROBUST/reached"
    exec sleep 600
fi
version=6.12.9-1
release=6.12.9-amd64

# The argument behind -C, and the words of what is asked of apt.
directory=
words=
previous=
for argument; do
    case $previous in
    -C) directory=$argument ;;
    -o) ;;
    *) case $argument in -*) ;; *) words="$words $argument" ;; esac ;;
    esac
    previous=$argument
done

stanza() {
    printf 'Package: %s\nVersion: %s\nDepends: %s\n\n' "$1" "$2" "$3"
}

case $tool in
apt-cache)
    case $words in
    *pkgnames*)
        for part in "image-$release" "headers-$release" kbuild-6.12.9 headers-6.12.9-common \
            source-6.12; do
            echo "linux-$part"
        done
        ;;
    *)
        stanza "linux-image-$release" $version kmod
        stanza "linux-headers-$release" $version \
            "linux-headers-6.12.9-common (= $version), linux-kbuild-6.12.9, gcc-12"
        stanza linux-headers-6.12.9-common $version libc6
        stanza linux-kbuild-6.12.9 $version libc6
        stanza linux-source-6.12 $version xz-utils
        stanza busybox-static 1:1.35.0-4 libc6
        ;;
    esac
    ;;
apt-get)
    for word in $words; do
        case $word in
        *=*) : >"${word%%=*}_$(echo "${word#*=}" | sed 's/:/%3a/')_amd64.deb" ;;
        esac
    done
    ;;
dpkg-deb)
    # Asked once for each package; all are unpacked each time.
    for into; do :; done
    mkdir -p "$into/boot" "$into/bin" "$into/lib/modules" "$into/usr/src/linux-headers-$release"
    : >"$into/usr/src/linux-source-6.12.tar.xz"
    echo kernel >"$into/boot/vmlinuz-$release"
    echo busybox >"$into/bin/busybox"
    echo 'include /usr/src/' >"$into/usr/src/linux-headers-$release/Makefile"
    for module in vfio vfio_iommu_type1 mdev; do
        echo $module >"$into/lib/modules/$module.ko.xz"
    done
    ;;
tar)
    mkdir -p "$directory/linux-source-6.12/samples/vfio-mdev"
    echo driver >"$directory/linux-source-6.12/samples/vfio-mdev/mtty.c"
    ;;
make)
    for argument; do
        case $argument in M=*) echo module >"${argument#M=}/mtty.ko" ;; esac
    done
    ;;
xz)
    cat "$2"
    ;;
qemu-system-x86_64)
    {
        echo '{"lab":"ready"}'
        echo '{"event":"begin","index":0,"trace":"arcs/full/RUNNING/to-STOP"}'
        echo '{"event":"verdict","index":0,"trace":"arcs/full/RUNNING/to-STOP","ops":1,"verdict":"pass"}'
        echo '{"event":"done"}'
        echo '{"lab":"exit","code":0}'
    } >&0
    ;;
esac
