#!/bin/busybox sh
# L1 as a hypervisor: runs an L2 under KVM and QEMU, with its console on this machine's. The kernel's command line says
# which (`l2=NAME`, a folder of /l2), what to add to its command line (`l2.WORD`), and how kvm-intel is loaded
# (`kvm_intel.PARAMETER=VALUE`, as if it were built in).
export PATH=/bin

# The machine ends with this status.
end() {
  # Errors were on the console when they came; the first few tell that there were any.
  busybox dmesg -r | busybox grep -m 5 '^<[0-4]>' | while read -r line; do echo "L1: warning of the kernel: $line"; done
  echo 'L1: done'
  # Sets what is set already, but only once the console has sent everything: poweroff would cut it off.
  busybox stty sane
  [ $1 = 0 ] && busybox poweroff -f
  exec exit-port $1
}

busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
for word in $(busybox cat /proc/cmdline); do
  case $word in
    l2=*) l2=/l2/${word#l2=} ;;
    l2.*) words="$words ${word#l2.}" ;;
    kvm_intel.*) parameters="$parameters ${word#kvm_intel.}" ;;
  esac
done
echo "L1: user space reached on $(busybox nproc) processors"

# What the kernel warns of from here on is of KVM.
busybox dmesg -c >/dev/null
busybox insmod /modules/irqbypass.ko
busybox insmod /modules/kvm.ko
# dump_invalid_vmcs: if an entry fails, the warnings show the whole VMCS.
busybox insmod /modules/kvm-intel.ko dump_invalid_vmcs=1 $parameters || end 1
for parameter in ept unrestricted_guest vpid enable_apicv enable_shadow_vmcs nested pml preemption_timer; do
  echo "L1: kvm-intel has $parameter=$(busybox cat /sys/module/kvm_intel/parameters/$parameter)"
done

echo "L1: starting QEMU with $l2"
set -- -kernel $l2/kernel -append "$(busybox cat $l2/cmdline)$words"
[ -f $l2/initrd ] && set -- "$@" -initrd $l2/initrd
{
  qemu -nodefaults -no-user-config -machine pc,accel=kvm -cpu host -smp $(busybox cat $l2/cpus) -m 384 \
    -display none -serial stdio -device pc-testdev -device isa-debug-exit,iobase=0xf4,iosize=0x4 -L /firmware -no-reboot "$@" \
    2>&1 >/dev/console </dev/null
  echo $? >/tmp/status
} | while read -r line; do
  # That there are more of L2's processors than of L1's is as it should be.
  case $line in *"exceeds the recommended cpus supported by KVM"*) continue ;; esac
  echo "L1: QEMU says: $line"
  : >/tmp/complaint
  # A virtual machine that cannot go on is left standing; what follows in this second are its registers.
  case $line in KVM*) busybox sleep 1; busybox killall qemu ;; esac
done
status=$(busybox cat /tmp/status)
echo "L1: QEMU's status is $status"
[ -f /tmp/complaint ] && end 1
# 0 is a power-off of L2; after a write of N to its exit port QEMU says 2N + 1.
end $((status / 2))
