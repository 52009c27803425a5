package links

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"pqlab/internal/netns"
	"pqlab/topology"
)

// Shaper makes links that have the shapes of the topology. Those that exist are chosen by Choose.
type Shaper interface {
	// Name is what --shaper calls it.
	Name() string
	// Lacks says what link needs that this shaper cannot give it here; nil when it can be made.
	Lacks(link topology.PlannedLink) *LinkNeeds
	// connect makes a link that Lacks nothing. On error it leaves nothing.
	connect(link topology.PlannedLink, a, b *netns.Namespace) (body, error)
}

// shapers lists what exists, for a lab with these links. A new shaper joins with a line.
func shapers(k kernel, links []topology.PlannedLink) []Shaper {
	tbf, netem, wired := tbf{k}, netem{k}, wired{k, newAir(links)}
	return []Shaper{
		auto{queueing{"auto", []discipline{tbf, netem}, wired}, wired},
		queueing{tbf.Name(), []discipline{tbf}, wired}, queueing{netem.Name(), []discipline{netem}, wired}, wired, none{},
	}
}

// auto takes for each link the least that can do it.
type auto struct {
	queueing
	wired wired
}

func (a auto) Lacks(link topology.PlannedLink) *LinkNeeds {
	lacks := a.queueing.Lacks(link)
	if lacks == nil || a.wired.Lacks(link) == nil {
		return nil
	}
	lacks.Missing = union(lacks.Missing, a.wired.Lacks(link).Missing)
	return lacks
}

func (a auto) connect(link topology.PlannedLink, x, y *netns.Namespace) (body, error) {
	if a.queueing.Lacks(link) == nil {
		return a.queueing.connect(link, x, y)
	}
	return a.wired.connect(link, x, y)
}

// Names lists what Choose accepts.
func Names() []string {
	var names []string
	for _, s := range shapers(kernel{}, nil) {
		names = append(names, s.Name())
	}
	return names
}

// ErrUnknownShaper is wrapped by Choose's error for a name that is not in Names.
var ErrUnknownShaper = errors.New("unknown shaper")

// Choose gives the shaper that want names; "" means auto, which takes for each link the least that can do it.
// It makes no link, but tries what the kernel has, in a namespace of its own. If any link needs what the shaper cannot
// give, the error is an *UnsupportedError that names every such link.
func Choose(links []topology.PlannedLink, want string) (Shaper, error) {
	return choose(links, want, probed())
}

func choose(links []topology.PlannedLink, want string, k kernel) (Shaper, error) {
	if want == "" {
		want = "auto"
	}
	all := shapers(k, links)
	i := slices.IndexFunc(all, func(s Shaper) bool { return s.Name() == want })
	if i < 0 {
		return nil, fmt.Errorf("%w %q: there are %s", ErrUnknownShaper, want, strings.Join(Names(), ", "))
	}
	var lacking []LinkNeeds
	for _, l := range links {
		if lacks := all[i].Lacks(l); lacks != nil {
			lacking = append(lacking, *lacks)
		}
	}
	if lacking != nil {
		return nil, &UnsupportedError{Links: lacking}
	}
	return all[i], nil
}

// LinkNeeds is one link that cannot be made as the topology wants it.
type LinkNeeds struct {
	Link    string
	Needs   []string // what it is that cannot be had: "delay 2ms"
	Missing []string // why: "this kernel has no netem (CONFIG_NET_SCH_NETEM)"
	Instead []string // shapers that could: "wire"; of a link that is up, once nothing is Missing for them
}

// UnsupportedError says which links need what cannot be had here. Nothing was made or changed.
type UnsupportedError struct {
	Links []LinkNeeds
	Up    bool // they exist, and keep the shaper that made them
	// Shaped says that they are of no use without their shapes, so that --shaper=none is no way out.
	Shaped bool
}

// Error has a line for each link.
func (e *UnsupportedError) Error() string {
	lines := make([]string, len(e.Links))
	for i, l := range e.Links {
		lines[i] = fmt.Sprintf("link %s: needs %s; %s", l.Link, strings.Join(l.Needs, " and "), strings.Join(l.Missing, "; "))
		for _, name := range l.Instead {
			if e.Up {
				lines[i] += fmt.Sprintf("; a link that is up keeps its shaper: take the lab down and up again with --shaper=%s (pqlab down LAB; pqlab up ... --shaper %[1]s)", name)
			} else {
				lines[i] += fmt.Sprintf("; --shaper=%s can", name)
			}
		}
		if !e.Up && !e.Shaped {
			lines[i] += "; --shaper=none runs it unshaped"
		}
	}
	return strings.Join(lines, "\n")
}

// Is makes it errors.ErrUnsupported.
func (e *UnsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

// needsRate says what rate a bare pair of interfaces does not give.
func needsRate(s topology.Shape) []string {
	if s.Rate == 0 {
		return nil
	}
	return []string{fmt.Sprintf("rate %v", s.Rate)}
}

// none makes every link a bare pair of interfaces and records what was asked of it.
type none struct{}

func (none) Name() string { return "none" }

func (none) Lacks(topology.PlannedLink) *LinkNeeds { return nil }

func (none) connect(link topology.PlannedLink, a, b *netns.Namespace) (body, error) {
	made, err := newVeth(link, a, b, nil)
	if err != nil {
		return nil, err
	}
	return unshaped{made}, nil
}

// unshaped is what remains so.
type unshaped struct{ *pair }

func (u unshaped) become(now, next [2]topology.Shape) error {
	return fmt.Errorf("link %s: %w; take the lab down and up again without --shaper=none", u.plan.Name, ErrUnshaped)
}
