//! A launch, said whole: everything that is asked for follows from the order, the attempt and the configuration, so that it is the same call
//! when it is made again.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder;
use aws_sdk_ec2::types::{
    BlockDeviceMapping, EbsBlockDevice, HttpTokensState, InstanceInterruptionBehavior, InstanceIpv6Address,
    InstanceMarketOptionsRequest, InstanceMetadataOptionsRequest, InstanceNetworkInterfaceSpecification,
    InstanceType, LaunchTemplateSpecification, MarketType, Placement, PrivateIpAddressSpecification,
    ResourceType, SpotInstanceType, SpotMarketOptions, TagSpecification,
};
use aws_smithy_types::base64;
use shoal_agent::{Fault, HostName};
use shoal_machine::{Machine, Network};

use super::cloud::made;
use super::mark::Mark;
use super::settings::{DISK, Ec2Settings, Image, Spot, Subnet, Way};

/// The most octets of what an instance finds at its first start.
const MAX_USER_DATA: usize = 16 * 1024;
/// Octets of what EC2 counts disks in.
const GIB: u64 = 1 << 30;

/// What is asked for.
#[derive(Debug)]
pub(super) struct Launch {
    mark: Mark,
    zone: String,
    image: Image,
    spot: Option<Spot>,
    interfaces: Vec<InstanceNetworkInterfaceSpecification>,
    root: Option<BlockDeviceMapping>,
    user_data: Option<String>,
    tags: BTreeMap<String, String>,
}

impl Launch {
    /// Of an order, one way.
    ///
    /// # Errors
    /// It makes no sense here.
    pub(super) fn new(
        settings: &Ec2Settings,
        room: &HostName,
        mark: Mark,
        way: &Way<'_>,
    ) -> Result<Self, Fault> {
        let machine = &mark.order.machine;
        let image = settings.image(&machine.image)?.clone();
        if !machine.disks.is_empty() {
            let what = format!("find the disks of {}", mark.order.host);
            return Err(Fault::new(what, "EC2 gets no disks here beside the first one")
                .next("have a launch template make them, or leave `disks` out")
                .permanent());
        }
        let mut tags = settings.tags.clone();
        tags.extend(mark.tags(room)?);
        Ok(Self {
            zone: settings.zone.clone(),
            spot: settings.spot.clone().filter(|_| way.spot),
            interfaces: interfaces(settings, machine)?,
            root: root(machine, &image)?,
            user_data: user_data(&mark, &image)?,
            tags,
            image,
            mark,
        })
    }

    /// All of the call.
    pub(super) fn ask(&self, call: RunInstancesFluentBuilder) -> RunInstancesFluentBuilder {
        let kinds = [ResourceType::Instance, ResourceType::Volume, ResourceType::NetworkInterface];
        let tags = kinds.map(|kind| {
            TagSpecification::builder().resource_type(kind).set_tags(Some(made(&self.tags))).build()
        });
        let mut call = call
            .min_count(1)
            .max_count(1)
            .client_token(self.mark.client_token())
            .placement(Placement::builder().availability_zone(&self.zone).build())
            .set_tag_specifications(Some(Vec::from(tags)))
            .set_user_data(self.user_data.clone())
            .set_instance_type(self.mark.kind.as_deref().map(InstanceType::from));
        if !self.interfaces.is_empty() {
            call = call.set_network_interfaces(Some(self.interfaces.clone()));
        }
        if let Some(root) = &self.root {
            call = call.block_device_mappings(root.clone());
        }
        if self.mark.protected {
            call = call.disable_api_termination(true);
        }
        if let Some(asked) = &self.spot {
            call = call.instance_market_options(spot(asked));
        }
        if let Some(template) = &self.image.template {
            let is_id = template.starts_with("lt-");
            let template = LaunchTemplateSpecification::builder()
                .set_launch_template_id(is_id.then(|| template.clone()))
                .set_launch_template_name((!is_id).then(|| template.clone()))
                .set_version(self.image.version.clone());
            return call.launch_template(template.build());
        }
        let tokens = InstanceMetadataOptionsRequest::builder().http_tokens(HttpTokensState::Required);
        call.set_image_id(self.image.ami.clone()).metadata_options(tokens.build())
    }
}

/// Spare capacity, once: an instance that was taken back is not started again by EC2.
fn spot(asked: &Spot) -> InstanceMarketOptionsRequest {
    let options = SpotMarketOptions::builder()
        .spot_instance_type(SpotInstanceType::OneTime)
        .instance_interruption_behavior(InstanceInterruptionBehavior::Terminate)
        .set_max_price(asked.max_price.clone());
    InstanceMarketOptionsRequest::builder()
        .market_type(MarketType::Spot)
        .spot_options(options.build())
        .build()
}

fn interfaces(
    settings: &Ec2Settings,
    machine: &Machine,
) -> Result<Vec<InstanceNetworkInterfaceSpecification>, Fault> {
    let mut all = Vec::new();
    for (n, network) in machine.networks.iter().enumerate() {
        let alone = machine.networks.len() == 1;
        all.push(interface(
            i32::try_from(n).unwrap_or(i32::MAX),
            network,
            settings.network(&network.name)?,
            alone,
        ));
    }
    Ok(all)
}

/// The addresses of a machine in a network, by kind.
pub(super) fn addresses(network: &Network) -> (Vec<Ipv4Addr>, Vec<Ipv6Addr>) {
    let (mut four, mut six) = (Vec::new(), Vec::new());
    for address in &network.addresses {
        match address.ip() {
            std::net::IpAddr::V4(at) => four.push(at),
            std::net::IpAddr::V6(at) => six.push(at),
        }
    }
    (four, six)
}

fn interface(
    number: i32,
    network: &Network,
    subnet: &Subnet,
    alone: bool,
) -> InstanceNetworkInterfaceSpecification {
    let (four, six) = addresses(network);
    let mut interface = InstanceNetworkInterfaceSpecification::builder()
        .device_index(number)
        .subnet_id(&subnet.subnet)
        .delete_on_termination(true)
        .set_associate_public_ip_address(subnet.public.filter(|_| alone));
    for group in &subnet.groups {
        interface = interface.groups(group);
    }
    for at in six {
        interface =
            interface.ipv6_addresses(InstanceIpv6Address::builder().ipv6_address(at.to_string()).build());
    }
    match &four[..] {
        [] => {}
        [only] => interface = interface.private_ip_address(only.to_string()),
        many => {
            for (n, at) in many.iter().enumerate() {
                let at = PrivateIpAddressSpecification::builder()
                    .private_ip_address(at.to_string())
                    .primary(n == 0);
                interface = interface.private_ip_addresses(at.build());
            }
        }
    }
    interface.build()
}

/// The first disk, where the size says how large it is.
fn root(machine: &Machine, image: &Image) -> Result<Option<BlockDeviceMapping>, Fault> {
    let Some(octets) = machine.size.get(DISK) else { return Ok(None) };
    let what = || format!("give a machine of {} a disk of {octets} octets", machine.image);
    let Some(root) = &image.root else {
        return Err(Fault::new(what(), "the configuration does not say which device its first disk is")
            .next("write `root` for the image, or leave `disk` out of the size")
            .permanent());
    };
    let size = i32::try_from(octets.div_ceil(GIB)).map_err(|e| Fault::new(what(), e).permanent())?;
    let disk = EbsBlockDevice::builder().volume_size(size).delete_on_termination(true).build();
    Ok(Some(BlockDeviceMapping::builder().device_name(root).ebs(disk).build()))
}

/// What the document says, else what it is called. A template may have its own.
fn user_data(mark: &Mark, image: &Image) -> Result<Option<String>, Fault> {
    let host = &mark.order.host;
    let data = match &mark.order.machine.user_data {
        Some(data) => data.clone(),
        None if image.template.is_some() => return Ok(None),
        None => format!("#cloud-config\nfqdn: {host}\nprefer_fqdn_over_hostname: true\n"),
    };
    if data.len() > MAX_USER_DATA {
        let why = format!("it has {} octets, and EC2 takes {MAX_USER_DATA}", data.len());
        return Err(Fault::new(format!("hand {host} its user data"), why)
            .next("have it fetch the rest itself")
            .permanent());
    }
    Ok(Some(base64::encode(data)))
}
