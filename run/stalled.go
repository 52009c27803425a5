package run

import (
	"fmt"
	"strings"

	"pqlab/lab"
	"pqlab/report"
)

// place is somewhere in a node where packets may find no room.
type place struct{ node, name string }

// watchPlaces notes what places have dropped already: an interface drops what comes before it is up.
func (r *runner) watchPlaces() error {
	dropped, err := r.lab.Dropped()
	r.places = map[place]uint64{}
	for _, d := range dropped {
		r.places[place{d.Node, d.Place}] = d.Packets
	}
	return err
}

// placesText says, to be put behind a flow's loss, what the nodes themselves dropped in the run until now.
func (r *runner) placesText() (string, error) {
	dropped, err := r.lab.Dropped()
	var where []string
	for _, d := range r.risen(dropped) {
		where = append(where, fmt.Sprintf("%s of node %s %d", d.Place, d.Node, d.Packets))
	}
	if where == nil {
		return "", err
	}
	return "; until now in the nodes: " + strings.Join(where, ", "), err
}

// judgePlaces takes into the result what the nodes themselves dropped in the run.
func (r *runner) judgePlaces() error {
	dropped, err := r.lab.Dropped()
	for _, d := range r.risen(dropped) {
		r.result.NodeDrops = append(r.result.NodeDrops, report.NodeDrops{Node: d.Node, Place: d.Place, Packets: d.Packets})
		r.warn(fmt.Sprintf("node %s: %d packets found no room in %s: this machine was too busy to run what empties it", d.Node, d.Packets, d.Place))
	}
	return err
}

func (r *runner) risen(dropped []lab.Dropped) (all []lab.Dropped) {
	for _, d := range dropped {
		if d.Packets -= min(d.Packets, r.places[place{d.Node, d.Place}]); d.Packets > 0 {
			all = append(all, d)
		}
	}
	return all
}
