package supervisor

import "time"

// WiFiCell is what an access point and its stations have done since the cell began.
type WiFiCell struct {
	AP       string        `json:"ap"`
	At       time.Duration `json:"at_ns"`   // since the cell began
	Busy     time.Duration `json:"busy_ns"` // of it the channel was taken, by whomever
	Stations []WiFiStation `json:"stations"`
}

// WiFiStation is one station of a WiFiCell.
type WiFiStation struct {
	Name     string        `json:"name"`
	Link     string        `json:"link"`
	Distance float64       `json:"distance_m"`
	Walls    int           `json:"walls"`
	Up       WiFiDirection `json:"up"`   // from the station
	Down     WiFiDirection `json:"down"` // to it
}

// WiFiDirection is what became of one direction's packets, and what was sent for them.
type WiFiDirection struct {
	SNR     float64 `json:"snr_db"`
	MCS     int     `json:"mcs"` // that rate control thinks best now, or the fixed one
	Streams int     `json:"streams"`
	PHYRate float64 `json:"phy_bits_per_second"`

	Packets        uint64 `json:"packets"` // that entered
	Bytes          uint64 `json:"bytes"`   // of their frames
	Delivered      uint64 `json:"delivered"`
	DeliveredBytes uint64 `json:"delivered_bytes"`
	LostQueue      uint64 `json:"lost_queue"`
	LostRetries    uint64 `json:"lost_retries"`
	Queued         uint64 `json:"queued"` // now; neither delivered nor lost yet

	PPDUs      uint64        `json:"ppdus"` // A-MPDUs sent
	Collisions uint64        `json:"collisions"`
	MPDUs      uint64        `json:"mpdus"`  // sent in them, each time
	Failed     uint64        `json:"failed"` // of these
	Retries    uint64        `json:"retries"`
	Airtime    time.Duration `json:"airtime_ns"`
}
