package xfrm

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
)

// Probe installs SAs of both families in the namespace of the calling thread, as a tunnel would, and removes them. The
// error is ErrNoESP where the kernel has no ESP. Nothing is ever sent with their keys, which are zeros.
func Probe() error {
	c, err := xfrmnl.Dial()
	if err != nil {
		return noESP(err)
	}
	defer c.Close()
	directions, err := c.Directions()
	if err != nil {
		return noESP(err)
	}
	if err := probe(c, directions); err != nil {
		return err
	}
	_, err = ReadStatistics()
	return err
}

func probe(c *xfrmnl.Conn, directions bool) error {
	var errs []error
	for _, a := range [][2]string{{"192.0.2.254", "192.0.2.255"}, {"2001:db8::fffe", "2001:db8::ffff"}} { // of documentation
		sa := xfrmnl.SA{
			Src: netip.MustParseAddr(a[0]), Dst: netip.MustParseAddr(a[1]), SPI: 1<<32 - 1, ReqID: 1<<32 - 1, Key: new([32]byte),
			Window: xfrmnl.MaxWindow, UDP: ipsec.UDPPort, Soft: xfrmnl.NoLimits, Hard: xfrmnl.NoLimits,
		}
		if directions {
			sa.Direction = xfrmnl.In
		}
		if err := c.AddSA(&sa); err != nil {
			return fmt.Errorf("an SA from %s to %s: %w", a[0], a[1], noESP(err))
		}
		errs = append(errs, c.DeleteSA(sa.Dst, sa.SPI))
	}
	return errors.Join(errs...)
}

// superPackets finds out whether the kernel may hand ESP packets of a family to the interface before it segments them. Then
// it would count a super-packet as one (xfrm_dev_offload_ok in net/xfrm/xfrm_device.c; Linux 6.12 was not seen to). It may do so
// for IP protocol 50 only, and only with a module that it loads when a device is asked to offload; a kernel may have it built in.
func superPackets(v6 bool) bool {
	module := "esp4_offload"
	if v6 {
		module = "esp6_offload"
	}
	if _, err := os.Stat("/sys/module/" + module); err == nil {
		return true
	}
	if b, err := os.ReadFile("/proc/modules"); err == nil && strings.Contains("\n"+string(b), "\n"+module+" ") {
		return true
	}
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	b, err := os.ReadFile("/lib/modules/" + unix.ByteSliceToString(u.Release[:]) + "/modules.builtin")
	return err == nil && strings.Contains(string(b), "/"+module+".ko")
}
