//! The CPU floor of each large operation: what its unavoidable primitives cost on this machine, all nodes together.
//! docs/performance.md says why each is unavoidable.

use serde::Serialize;

use crate::ceilings::Ceilings;

/// Passes of BLAKE3 over what is sealed: the key of the chunk, the name of the chunk, the hash of the file.
const SEALING: f64 = 3.0;

/// CPU seconds a GiB.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Floors {
    pub(crate) put_one: f64,
    pub(crate) put_three: f64,
    pub(crate) get_local: f64,
    pub(crate) get_peer: f64,
}

impl Floors {
    pub(crate) fn of(ceilings: &Ceilings) -> Self {
        let Ceilings { blake3, aes, tls, socket_send, socket_receive, memory_write, memory_read, .. } =
            ceilings;
        let put = |replicas: f64| {
            let away = replicas - 1.0;
            socket_receive.cpu
                + SEALING * blake3.cpu
                + aes.cpu
                + replicas * memory_write.cpu
                + away * (tls.cpu + blake3.cpu)
        };
        let get_local = memory_read.cpu + aes.cpu + socket_send.cpu;
        Self { put_one: put(1.0), put_three: put(3.0), get_local, get_peer: get_local + tls.cpu }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ceilings::Rate;

    #[test]
    fn floors_are_sums() {
        let cpu = |cpu| Rate { rate: 1.0, cpu };
        let ceilings = Ceilings {
            memcpy: cpu(100.0),
            blake3: cpu(1.0),
            aes: cpu(10.0),
            md5: cpu(100.0),
            tls: cpu(1000.0),
            socket_send: cpu(0.1),
            socket_receive: cpu(0.01),
            memory_write: cpu(10_000.0),
            memory_read: cpu(100_000.0),
            cat: cpu(100.0),
        };
        let floors = Floors::of(&ceilings);
        assert_eq!(floors.put_one, 10_013.01);
        assert_eq!(floors.put_three, 32_015.01);
        assert_eq!(floors.get_local, 100_010.1);
        assert_eq!(floors.get_peer, 101_010.1);
    }
}
