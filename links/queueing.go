package links

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/topology"
)

// discipline is a way to shape the packets that leave an interface by the kernel's queueing disciplines.
type discipline interface {
	Name() string
	// lacks says what of a shape this cannot do here, and why.
	lacks(s topology.Shape) (needs, missing []string)
	// queues are what an interface gets, the root first. The same discipline gives the same kinds and handles for every
	// shape, and options that leave nothing of an earlier shape.
	queues(s topology.Shape, mtu int, seed uint64) []netlink.Qdisc
	// seeded says whether seed has an effect.
	seeded() bool
}

// queueing makes links of veth pairs and gives each the first of its disciplines that can shape both directions, or none
// where nothing is to be shaped.
type queueing struct {
	name    string
	choices []discipline
	wired   wired // what does more, for those who ask for it
}

func (q queueing) Name() string { return q.name }

func (q queueing) Lacks(link topology.PlannedLink) *LinkNeeds {
	if link.WiFi != nil {
		return &LinkNeeds{Link: link.Name, Needs: link.Needs(link.Shape), Missing: []string{"the kernel's queues know no airtime"}, Instead: q.instead(link)}
	}
	_, lacks := q.pick(link.Name, [2]topology.Shape{link.Shape, link.Shape})
	if lacks != nil {
		lacks.Instead = q.instead(link)
	}
	return lacks
}

// instead names shapers that could do what link needs.
func (q queueing) instead(link topology.PlannedLink) []string {
	if q.wired.Lacks(link) == nil {
		return []string{q.wired.Name()}
	}
	return nil
}

// pick gives a discipline, or nil where both directions are bare. If there is none it says what the one nearest to it
// lacks.
func (q queueing) pick(link string, shapes [2]topology.Shape) (discipline, *LinkNeeds) {
	if bare(shapes[0]) && bare(shapes[1]) {
		return nil, nil
	}
	var nearest *LinkNeeds
	for _, d := range q.choices {
		lacks := LinkNeeds{Link: link}
		for _, s := range shapes {
			needs, missing := d.lacks(s)
			lacks.Needs, lacks.Missing = union(lacks.Needs, needs), union(lacks.Missing, missing)
		}
		if lacks.Needs == nil {
			return d, nil
		}
		nearest = &lacks // the last can do the most
	}
	return nil, nearest
}

func bare(s topology.Shape) bool { return s.Rate == 0 && s.Impairments() == nil }

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

func (q queueing) connect(link topology.PlannedLink, a, b *netns.Namespace) (body, error) {
	d, _ := q.pick(link.Name, [2]topology.Shape{link.Shape, link.Shape})
	qs := queuesOf(d, link, [2]topology.Shape{link.Shape, link.Shape})
	made, err := newVeth(link, a, b, func(side int, e end) error { return e.become(nil, qs[side]) })
	if err != nil {
		return nil, err
	}
	made.choices, made.now = q, d
	return made, nil
}

// queuesOf gives the queues of both ends. Each direction has randomness of its own.
func queuesOf(d discipline, link topology.PlannedLink, shapes [2]topology.Shape) (qs [2][]netlink.Qdisc) {
	if d == nil {
		return qs
	}
	for side, s := range shapes {
		qs[side] = d.queues(s, link.MTU, directionSeed(link.Seed, side))
	}
	return qs
}

// directionSeed is SplitMix64's output number side+1 from seed.
func directionSeed(seed uint64, side int) uint64 {
	z := seed + uint64(side+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// end is one end of a link.
type end struct {
	ns    *netns.Namespace
	index int
}

// become replaces the queues of the interface. Those of the same kinds stay, with what they hold, and get new options;
// others are emptied. After an error they are in between: call reset.
func (e end) become(now, next []netlink.Qdisc) error {
	same := len(now) == len(next)
	for i := range min(len(now), len(next)) {
		same = same && now[i].Type() == next[i].Type() && now[i].Attrs().Handle == next[i].Attrs().Handle
	}
	if same {
		for _, q := range next {
			if err := e.request(unix.RTM_NEWQDISC, 0, q); err != nil {
				return err
			}
		}
		return nil
	}
	if now != nil {
		if err := e.request(unix.RTM_DELQDISC, 0, now[0]); err != nil {
			return err
		}
	}
	for _, q := range next {
		if err := e.request(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, q); err != nil {
			return err
		}
	}
	return nil
}

// reset gives the interface these queues whatever it has.
func (e end) reset(qs []netlink.Qdisc) error {
	root := &netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{Parent: netlink.HANDLE_ROOT}}
	// The interface's own default cannot be removed, which is said in one of two ways.
	err := e.request(unix.RTM_DELQDISC, 0, root)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return e.become(nil, qs)
}

func (e end) request(kind, flags int, q netlink.Qdisc) error {
	if err := request(e.ns, e.index, kind, flags, q); err != nil {
		verb := "set"
		if kind == unix.RTM_DELQDISC {
			verb = "remove"
		}
		return fmt.Errorf("%s %s: %w", verb, q.Type(), err)
	}
	return nil
}
