package run

import (
	"reflect"
	"testing"
	"time"

	"pqlab/links/wifi"
	"pqlab/supervisor"
	"pqlab/topology"
)

// A cell is told of once, with the link of each station; links without airtime are not.
func TestCellsOf(t *testing.T) {
	t.Parallel()
	ap, far := &topology.PlannedCell{AP: "ap"}, &topology.PlannedCell{AP: "far"}
	link := func(name string, c *topology.PlannedCell) topology.PlannedLink {
		return topology.PlannedLink{Link: topology.Link{Name: name}, Cell: c}
	}
	near := wifi.Cell{At: time.Second, Busy: time.Millisecond, Stations: []wifi.StationState{
		{Name: "one", Distance: 3, Walls: 2, Up: wifi.Direction{
			SNR: 1, MCS: 2, Streams: 3, PHYRate: 4, Packets: 5, Bytes: 6, Delivered: 7, DeliveredBytes: 8, LostQueue: 9, LostRetries: 10, Queued: 11,
			PPDUs: 12, Collisions: 13, MPDUs: 14, Failed: 15, Retries: 16, Airtime: 17,
		}},
		{Name: "two", Down: wifi.Direction{MCS: 7}},
	}}
	got := cellsOf([]topology.PlannedLink{link("wire", nil), link("l2", ap), link("f1", far), link("l1", ap), link("closed", ap)},
		func(name string) (wifi.Cell, int, bool) {
			switch name {
			case "l1":
				return near, 0, true
			case "l2":
				return near, 1, true
			case "f1":
				return wifi.Cell{Stations: []wifi.StationState{{Name: "three"}}}, 0, true
			}
			return wifi.Cell{}, 0, false
		})
	want := []supervisor.WiFiCell{
		{AP: "ap", At: time.Second, Busy: time.Millisecond, Stations: []supervisor.WiFiStation{
			{Name: "one", Link: "l1", Distance: 3, Walls: 2, Up: supervisor.WiFiDirection{
				SNR: 1, MCS: 2, Streams: 3, PHYRate: 4, Packets: 5, Bytes: 6, Delivered: 7, DeliveredBytes: 8, LostQueue: 9, LostRetries: 10, Queued: 11,
				PPDUs: 12, Collisions: 13, MPDUs: 14, Failed: 15, Retries: 16, Airtime: 17,
			}},
			{Name: "two", Link: "l2", Down: supervisor.WiFiDirection{MCS: 7}},
		}},
		{AP: "far", Stations: []supervisor.WiFiStation{{Name: "three", Link: "f1"}}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
