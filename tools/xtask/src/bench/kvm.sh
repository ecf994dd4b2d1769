#!/bin/busybox sh
# Runs /guest under KVM; its console is this machine's.
export PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox insmod /modules/irqbypass.ko
busybox insmod /modules/kvm.ko
# With APICv, entries fail on Bochs 3.0: KVM's posted-interrupt descriptor is aligned to 64 bytes as the manual says, and
# Bochs wants 4096.
busybox insmod /modules/kvm-intel.ko enable_apicv=0
/lib/ld-linux-x86-64.so.2 --library-path /lib /bin/qemu -nodefaults -machine pc,accel=kvm -cpu host -smp 1 -m 256 \
  -display none -serial stdio -device pc-testdev -device isa-debug-exit,iobase=0xf4,iosize=0x4 -L /firmware \
  -kernel /guest -no-reboot < /dev/null
status=$?
# QEMU's status is twice what the guest wrote plus one; 0 is a power-off.
echo "peer-status $status"
busybox stty sane
busybox poweroff -f
