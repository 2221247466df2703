//! Drivers that move plausibly: each keeps a heading and a speed, and its next position follows from them.

/// Where the city is, in millionths of a degree.
const CENTRE: (i32, i32) = (40_712_800, -74_006_000);
/// Half the side of the area that drivers stay in, in millionths of a degree.
const REACH: i32 = 150_000;
/// Metres in a millionth of a degree of latitude, and of longitude at the latitude of the city.
const METRES: (f32, f32) = (0.111_32, 0.084_39);
/// Fastest driver, in decimetres per second.
const TOP_SPEED: i32 = 300;
/// Longest silence that a driver is moved for.
const LONGEST_STEP_MS: u32 = 60_000;

/// A position in the units that its JSON form is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Latitude in millionths of a degree.
    pub latitude_e6: i32,
    /// Longitude in millionths of a degree.
    pub longitude_e6: i32,
    /// Direction of movement, 0..360 degrees.
    pub heading_deg: u16,
    /// Speed in decimetres per second.
    pub speed_dm_s: u16,
}

#[derive(Debug, Clone, Copy)]
struct Driver {
    latitude: f32,
    longitude: f32,
    heading: u16,
    speed: u16,
    last_ms: u32,
}

/// All drivers of a run; positions are offsets from the centre, so that 32 bits are exact to centimetres.
#[derive(Debug)]
pub struct Fleet {
    drivers: Vec<Driver>,
    directions: Vec<(f32, f32)>,
    random: XorShift,
}

impl Fleet {
    /// `drivers` drivers, scattered over the area.
    #[must_use]
    pub fn new(drivers: u32) -> Self {
        let mut random = XorShift(0x9e37_79b9_7f4a_7c15);
        let drivers = (0..drivers).map(|_| Driver::placed_by(&mut random)).collect();
        let directions = (0..360u16).map(|degree| f32::from(degree).to_radians().sin_cos()).collect();
        Self { drivers, directions, random }
    }

    /// Moves driver `slot` to the moment `at_ms` of the run.
    pub fn advance(&mut self, slot: u32, at_ms: u32) -> Position {
        let driver = &mut self.drivers[slot as usize];
        let seconds = at_ms.saturating_sub(driver.last_ms).min(LONGEST_STEP_MS) as f32 / 1_000.0;
        let (east, north) = self.directions[usize::from(driver.heading)];
        let metres = f32::from(driver.speed) / 10.0 * seconds;
        driver.latitude += metres * north / METRES.0;
        driver.longitude += metres * east / METRES.1;
        driver.last_ms = at_ms;
        let position = driver.position();
        driver.steer(self.random.next());
        position
    }
}

impl Driver {
    fn placed_by(random: &mut XorShift) -> Self {
        let bits = random.next();
        let around = |bits: u64| (bits % (2 * REACH as u64)) as f32 - REACH as f32;
        Self {
            latitude: around(bits & 0xffff_ffff),
            longitude: around(bits >> 32),
            heading: u16::try_from(bits % 360).expect("below 360"),
            speed: u16::try_from((bits >> 20) % 200).expect("below 200"),
            last_ms: 0,
        }
    }

    fn position(&self) -> Position {
        Position {
            latitude_e6: CENTRE.0 + self.latitude as i32,
            longitude_e6: CENTRE.1 + self.longitude as i32,
            heading_deg: self.heading,
            speed_dm_s: self.speed,
        }
    }

    /// Turns and changes speed a little for the next stretch; at the edge of the area, back towards the centre.
    fn steer(&mut self, bits: u64) {
        let turn = (bits & 0xffff) as i32 % 31 - 15;
        let pedal = ((bits >> 16) & 0xffff) as i32 % 21 - 10;
        let heading = self.way_back().unwrap_or(i32::from(self.heading)) + turn;
        self.heading = u16::try_from(heading.rem_euclid(360)).expect("below 360");
        self.speed = u16::try_from((i32::from(self.speed) + pedal).clamp(0, TOP_SPEED)).expect("in range");
    }

    fn way_back(&self) -> Option<i32> {
        let reach = REACH as f32;
        match () {
            () if self.latitude > reach => Some(180),
            () if self.latitude < -reach => Some(0),
            () if self.longitude > reach => Some(270),
            () if self.longitude < -reach => Some(90),
            () => None,
        }
    }
}

/// Marsaglia's xorshift64: enough for scattering, and a run is repeatable.
#[derive(Debug)]
struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_is_valid_and_near_the_city() {
        let mut fleet = Fleet::new(50);
        for second in 0..2_000u32 {
            for slot in 0..50 {
                let position = fleet.advance(slot, second * 1_000);
                assert!((position.latitude_e6 - CENTRE.0).abs() < REACH + 5_000, "{position:?}");
                assert!((position.longitude_e6 - CENTRE.1).abs() < REACH + 5_000, "{position:?}");
                assert!(position.heading_deg < 360);
                assert!(i32::from(position.speed_dm_s) <= TOP_SPEED);
            }
        }
    }

    #[test]
    fn a_step_is_as_long_as_the_speed_says() {
        let mut fleet = Fleet::new(1);
        let before = fleet.advance(0, 0);
        let speed = f64::from(fleet.drivers[0].speed) / 10.0;
        let after = fleet.advance(0, 2_000);
        let north = f64::from(after.latitude_e6 - before.latitude_e6) * f64::from(METRES.0);
        let east = f64::from(after.longitude_e6 - before.longitude_e6) * f64::from(METRES.1);
        assert!((north.hypot(east) - 2.0 * speed).abs() < 0.5, "{north} {east} {speed}");
    }
}
