#!/bin/sh
# First process of the machine: reach the read-only root file system and become its init.
# The modules of /modules are named in the order in which they load.

mount -t devtmpfs devtmpfs /dev
for module in $(cat /modules/order); do
    insmod "/modules/$module" || echo "initrd: cannot load $module"
done

tries=0
until mount -t erofs -o ro /dev/vda /root 2>/dev/null; do
    tries=$((tries + 1))
    if [ "$tries" -ge 100 ]; then
        echo "initrd: /dev/vda is no erofs file system, or it is missing"
        exit 1
    fi
    sleep 0.05
done
mount --move /dev /root/dev
exec switch_root /root /usr/sbin/pyengine-init
