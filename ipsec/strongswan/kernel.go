package strongswan

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
	"pqlab/ipsec/plaintext"
	"pqlab/ipsec/route"
	"pqlab/ipsec/xfrm"
)

// ErrNoInterface: the kernel has no xfrm interfaces.
var ErrNoInterface = fmt.Errorf("the kernel has no xfrm interfaces (CONFIG_XFRM_INTERFACE, module xfrm_interface): %w", errors.ErrUnsupported)

// kernel is what a node's kernel has beside charon's SAs and policies: an interface that leads into them, routes there, and
// what refuses plaintext whether charon lives or not. Its methods are not safe for concurrent use.
type kernel struct {
	conn    *xfrmnl.Conn
	monitor *xfrmnl.Monitor
	netlink *netlink.Handle
	link    netlink.Link
	mtu     int
	routes  *route.Table
	filter  *plaintext.Filter
	guard   *guard
	steered map[string]route.Tunnel
	before  xfrm.Statistics
}

// interfaceName is that of the other dataplanes.
const interfaceName = "esp0"

// leastMTU of the interface: below it the kernel would take IPv6 away from it.
const leastMTU = 1280

// openKernel prepares the namespace of the calling thread. After an error nothing is left.
func openKernel() (_ *kernel, err error) {
	if err := xfrm.Probe(); err != nil {
		return nil, err
	}
	k := &kernel{mtu: leastMTU, steered: map[string]route.Tunnel{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.close())
		}
	}()
	if k.conn, err = xfrmnl.Dial(); err != nil {
		return nil, err
	}
	if k.before, err = xfrm.ReadStatistics(); err != nil {
		return nil, err
	}
	if k.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	k.routes = route.New(k.netlink)
	if err := k.makeInterface(); err != nil {
		return nil, err
	}
	if k.filter, err = plaintext.New("pqlab_strongswan", plaintext.Kernel(), plaintext.Through(k.link.Attrs().Index)); err != nil {
		return nil, err
	}
	if k.guard, err = newGuard(); err != nil {
		return nil, err
	}
	k.monitor, err = xfrmnl.WatchSAs()
	return k, err
}

// makeInterface makes the interface, through which nothing passes until charon has a policy for it.
func (k *kernel) makeInterface() error {
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		p := netip.MustParsePrefix(all)
		if err := k.conn.AddPolicy(&xfrmnl.Policy{
			Src: p, Dst: p, Hook: xfrmnl.Outgoing, Priority: 1<<32 - 1, IfID: interfaceID, Block: true,
		}); err != nil {
			return fmt.Errorf("policy for %v: %w", p, err)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = interfaceName, leastMTU
	err := k.netlink.LinkAdd(&netlink.Xfrmi{LinkAttrs: attrs, Ifid: interfaceID})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return ErrNoInterface
	}
	if err != nil {
		return fmt.Errorf("interface %s: %w", interfaceName, err)
	}
	if k.link, err = k.netlink.LinkByName(interfaceName); err != nil {
		return fmt.Errorf("interface %s: %w", interfaceName, err)
	}
	const none = 1 // IN6_ADDR_GEN_MODE_NONE: no address, and so no packets of the kernel's own
	if err := errors.Join(k.netlink.LinkSetIP6AddrGenMode(k.link, none), k.netlink.LinkSetGSOMaxSegs(k.link, 1), k.netlink.LinkSetUp(k.link)); err != nil {
		return fmt.Errorf("interface %s: %w", interfaceName, err)
	}
	return nil
}

// add refuses a tunnel's plaintext from its return on, and leads what it protects to the interface.
func (k *kernel) add(p ipsec.Policy) (err error) {
	sources, err := k.routes.Sources(p.Local)
	if err != nil {
		return err
	}
	mtu := p.InnerMTU(p.PathMTU)
	if mtu > k.mtu {
		if err := k.netlink.LinkSetMTU(k.link, mtu); err != nil {
			return fmt.Errorf("interface %s: MTU %d: %w", interfaceName, mtu, err)
		}
		k.mtu = mtu
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.remove(p.Tunnel))
		}
	}()
	if err := k.filter.Add(p); err != nil {
		return err
	}
	if err := k.guard.add(&p); err != nil {
		return err
	}
	k.steered[p.Tunnel] = route.Tunnel{Policy: p, MTU: mtu, Source: sources, Link: k.link.Attrs().Index}
	return k.routes.Sync(k.steered)
}

// remove undoes add, as far as it came.
func (k *kernel) remove(tunnel string) error {
	delete(k.steered, tunnel)
	errs := []error{k.routes.Sync(k.steered)}
	if k.filter.Has(tunnel) {
		errs = append(errs, k.filter.Remove(tunnel))
	}
	return errors.Join(append(errs, k.guard.remove(tunnel))...)
}

// refused is what the kernel refused in the namespace.
func (k *kernel) refused() (ipsec.Drops, error) {
	now, err := xfrm.ReadStatistics()
	if err != nil {
		return ipsec.Drops{}, err
	}
	return now.Since(k.before).Drops(), nil
}

// close undoes openKernel, as far as it came.
func (k *kernel) close() error {
	var errs []error
	if k.monitor != nil {
		errs = append(errs, k.monitor.Close())
	}
	if k.routes != nil {
		errs = append(errs, k.routes.Close())
	}
	if k.guard != nil {
		errs = append(errs, k.guard.close())
	}
	if k.filter != nil {
		errs = append(errs, k.filter.Close())
	}
	if k.link != nil {
		errs = append(errs, k.netlink.LinkDel(k.link))
	}
	if k.netlink != nil {
		k.netlink.Close()
	}
	if k.conn != nil {
		for _, all := range []string{"0.0.0.0/0", "::/0"} {
			p := netip.MustParsePrefix(all)
			if err := k.conn.DeletePolicy(&xfrmnl.Policy{Src: p, Dst: p, Hook: xfrmnl.Outgoing, IfID: interfaceID}); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("policy for %v: delete: %w", p, err))
			}
		}
		errs = append(errs, k.conn.Close())
	}
	return errors.Join(errs...)
}
