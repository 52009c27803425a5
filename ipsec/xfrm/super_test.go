package xfrm

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"pqlab/ipsec"
)

// TestSuperPackets: where the kernel might seal many packets of IP protocol 50 as one, the interface is told to take them one by
// one; and policies alone, which cannot have it so, are refused. It is not parallel: other tests are to have a kernel without
// that.
func TestSuperPackets(t *testing.T) {
	const modprobe, module = "/run/pqlab-guest/modprobe", "esp4_offload"
	if _, err := os.Stat(modprobe); err != nil {
		t.Skip("it loads a module, which is for guests only (go test -exec 'pqlab vm --')")
	}
	if out, err := exec.Command(modprobe, module).CombinedOutput(); err != nil || !superPackets(false) {
		t.Skipf("no %s here: %v %s", module, err, out)
	}
	t.Cleanup(func() {
		if err := unix.DeleteModule(module, 0); err != nil || superPackets(false) {
			t.Error("other tests will have it too:", err)
		}
	})

	d, err := New(Config{Namespace: nodes(t).ns[0], NoInterface: true})
	check(t, err)
	if err := d.AddTunnel(policy(0, ipsec.ESP)); !errors.Is(err, ErrSuperPackets) || !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	check(t, d.AddTunnel(policy(0, ipsec.UDP)))
	check(t, d.Close())

	p := start(t, Config{}, ipsec.ESP)
	h, err := p.ns[0].Netlink()
	check(t, err)
	l, err := h.LinkByName(p.planes[0].(*Dataplane).link.Attrs().Name)
	check(t, err)
	if n := l.Attrs().GSOMaxSegs; n != 1 {
		t.Errorf("the interface takes %d packets as one", n)
	}
}
