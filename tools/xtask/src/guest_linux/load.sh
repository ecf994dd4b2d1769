#!/bin/busybox sh
# An interrupt load for two processors: processes that wake each other across them, a timer of 1 kHz on each, and the serial
# port. `load=SECONDS` on the kernel's command line says for how long. What the host judges has its name before it.
export PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
# What the shell starts in the background reads it.
busybox mknod /dev/null c 1 3
seconds=$(busybox sed 's/.*load=\([0-9]*\).*/\1/' /proc/cmdline)
echo "user space reached on $(busybox nproc) processors, load for $seconds s"

# With the word `strict` Linux complains of a processor that stands still for two seconds, not for twenty as usual.
if busybox grep -q strict /proc/cmdline; then
  echo 1 >/proc/sys/kernel/watchdog_thresh
  echo 3 >/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout
fi
busybox dmesg -c | busybox grep -i x2apic | while read -r line; do echo "start: $line"; done

interrupts() {
  while read -r line; do echo "$1: $line"; done </proc/interrupts
}

busybox mkfifo /tmp/there0 /tmp/back0 /tmp/there1 /tmp/back1
interrupts before
for cpu in 0 1; do
  here=$((1 << cpu))
  busybox taskset $((3 - here)) load pong </tmp/there$cpu >/tmp/back$cpu &
  busybox taskset $here load ping $seconds >/tmp/there$cpu </tmp/back$cpu &
done
for cpu in 0 1; do
  here=$((1 << cpu))
  busybox taskset $here load timer $seconds &
  busybox renice -n -20 -p $! >/dev/null
done
load serial $seconds &
wait
interrupts after

busybox dmesg | while read -r line; do echo "kernel: $line"; done
echo 'done'
# Sets what is set already, but only once the console has sent everything: poweroff would cut it off.
busybox stty sane
exec busybox poweroff -f
