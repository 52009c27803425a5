package run

import (
	"pqlab/links/wifi"
	"pqlab/supervisor"
	"pqlab/topology"
)

// cellsOf are the Wi-Fi cells with airtime among the links, each once. snapshot is links.Link.Cell of a link.
func cellsOf(planned []topology.PlannedLink, snapshot func(link string) (c wifi.Cell, number int, ok bool)) []supervisor.WiFiCell {
	var all []supervisor.WiFiCell
	places := map[string]int{} // of an access point's cell in all
	for _, p := range planned {
		if p.Cell == nil {
			continue
		}
		c, number, ok := snapshot(p.Name)
		if !ok {
			continue
		}
		place, known := places[p.Cell.AP]
		if !known {
			place = len(all)
			places[p.Cell.AP] = place
			all = append(all, cellOf(p.Cell.AP, c))
		}
		all[place].Stations[number].Link = p.Name
	}
	return all
}

func cellOf(ap string, c wifi.Cell) supervisor.WiFiCell {
	out := supervisor.WiFiCell{AP: ap, At: c.At, Busy: c.Busy, Stations: []supervisor.WiFiStation{}}
	for _, s := range c.Stations {
		out.Stations = append(out.Stations, supervisor.WiFiStation{
			Name: s.Name, Distance: s.Distance, Walls: s.Walls, Up: airOf(s.Up), Down: airOf(s.Down),
		})
	}
	return out
}

func airOf(d wifi.Direction) supervisor.WiFiDirection {
	return supervisor.WiFiDirection{
		SNR: d.SNR, MCS: d.MCS, Streams: d.Streams, PHYRate: d.PHYRate,
		Packets: d.Packets, Bytes: d.Bytes, Delivered: d.Delivered, DeliveredBytes: d.DeliveredBytes,
		LostQueue: d.LostQueue, LostRetries: d.LostRetries, Queued: d.Queued,
		PPDUs: d.PPDUs, Collisions: d.Collisions, MPDUs: d.MPDUs, Failed: d.Failed, Retries: d.Retries, Airtime: d.Airtime,
	}
}
