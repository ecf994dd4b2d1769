# A network of its own, for the test of `pxe --serve`: a bridge, on it a DHCP server that knows nothing of Nestling, the
# server under test, and a tap device for a machine. Everything ends with this script. Run in new namespaces.
# Arguments: xtask, a board, what to do, and to `boot` the machine's command.
set -eu
xtask=$1 board=$2 what=$3
shift 3
ip link set lo up
ip link add net0 type bridge
ip link set net0 up
ip tuntap add client mode tap
ip link set client master net0 up

# A namespace with the interface `lan` on the bridge; its process is left in $pid.
join() {
    unshare --net sleep 1000 &
    pid=$!
    until [ "$(readlink "/proc/$pid/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
    ip link add "$1" type veth peer name lan netns "$pid"
    ip link set "$1" master net0 up
    nsenter --target "$pid" --net ip link set lan up
}
own_address() { nsenter --target "$pid" --net ip address add "$1/24" dev lan; }
dhcp_server() {
    nsenter --target "$pid" --net dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --interface=lan "$@" \
        --user=root --pid-file= --dhcp-leasefile="$PWD/leases" --dhcp-range=10.98.0.50,10.98.0.60 --log-facility="$PWD/dhcp.log" &
}
serve() { nsenter --target "$pid" --net "$@" "$xtask" pxe "$board" --serve --interface lan >server.log 2>&1; }

join server
case $what in
boot)
    own_address 10.98.0.2
    serve &
    join dhcp
    own_address 10.98.0.1
    dhcp_server --bind-interfaces
    for try in $(seq 600); do
        if grep -q 'serving on lan' server.log; then break; fi
        sleep 0.1
    done
    "$@"
    ;;
port-taken)
    own_address 10.98.0.2
    # Without --bind-interfaces it takes the port on all of them.
    dhcp_server
    until grep -q started dhcp.log 2>/dev/null; do sleep 0.05; done
    serve
    ;;
no-address) serve ;;
no-dnsmasq)
    own_address 10.98.0.2
    # Neither it nor what could install it.
    for program in dnsmasq apt-get; do mount --bind /dev/null "$(command -v $program)"; done
    serve
    ;;
no-rights) serve setpriv --reuid 65534 ;;
esac
