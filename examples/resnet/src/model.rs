//! ResNet-18, of burn-nn's layers. Fields are named as in torchvision's state dicts.

use burn::config::Config;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;

/// The defaults are torchvision's.
#[derive(Config, Debug)]
pub struct ResNetConfig {
    #[config(default = 64)]
    width: usize,
    #[config(default = 1000)]
    classes: usize,
}

#[derive(Module, Debug)]
pub struct ResNet<B: Backend> {
    conv1: Conv2d<B>,
    bn1: BatchNorm<B>,
    maxpool: MaxPool2d,
    layer1: Vec<BasicBlock<B>>,
    layer2: Vec<BasicBlock<B>>,
    layer3: Vec<BasicBlock<B>>,
    layer4: Vec<BasicBlock<B>>,
    avgpool: AdaptiveAvgPool2d,
    fc: Linear<B>,
}

#[derive(Module, Debug)]
struct BasicBlock<B: Backend> {
    conv1: Conv2d<B>,
    bn1: BatchNorm<B>,
    conv2: Conv2d<B>,
    bn2: BatchNorm<B>,
    /// A tuple has the paths of a `Sequential`: `downsample.0.weight`.
    downsample: Option<(Conv2d<B>, BatchNorm<B>)>,
}

impl ResNetConfig {
    pub fn init<B: Backend>(&self, device: &B::Device) -> ResNet<B> {
        let width = self.width;
        let layer = |inputs, outputs, stride| {
            vec![
                BasicBlock::new(inputs, outputs, stride, device),
                BasicBlock::new(outputs, outputs, 1, device),
            ]
        };
        ResNet {
            conv1: conv([3, width], 7, 2, device),
            bn1: BatchNormConfig::new(width).init(device),
            maxpool: MaxPool2dConfig::new([3, 3])
                .with_strides([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(),
            layer1: layer(width, width, 1),
            layer2: layer(width, 2 * width, 2),
            layer3: layer(2 * width, 4 * width, 2),
            layer4: layer(4 * width, 8 * width, 2),
            avgpool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            fc: LinearConfig::new(8 * width, self.classes).init(device),
        }
    }
}

impl<B: Backend> ResNet<B> {
    /// `[batch, 3, height, width]` → `[batch, classes]`.
    pub fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = relu(self.bn1.forward(self.conv1.forward(images)));
        let mut x = self.maxpool.forward(x);
        for layer in [&self.layer1, &self.layer2, &self.layer3, &self.layer4] {
            for block in layer {
                x = block.forward(x);
            }
        }
        self.fc.forward(self.avgpool.forward(x).flatten(1, 3))
    }
}

impl<B: Backend> BasicBlock<B> {
    fn new(inputs: usize, outputs: usize, stride: usize, device: &B::Device) -> Self {
        let norm = || BatchNormConfig::new(outputs).init(device);
        let narrows = stride != 1 || inputs != outputs;
        BasicBlock {
            conv1: conv([inputs, outputs], 3, stride, device),
            bn1: norm(),
            conv2: conv([outputs, outputs], 3, 1, device),
            bn2: norm(),
            downsample: narrows.then(|| (conv([inputs, outputs], 1, stride, device), norm())),
        }
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let shortcut = match &self.downsample {
            Some((conv, norm)) => norm.forward(conv.forward(x.clone())),
            None => x.clone(),
        };
        let x = relu(self.bn1.forward(self.conv1.forward(x)));
        relu(self.bn2.forward(self.conv2.forward(x)) + shortcut)
    }
}

/// A convolution with a square kernel, as much padding as keeps the size at a stride of 1, and no bias.
fn conv<B: Backend>(
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    device: &B::Device,
) -> Conv2d<B> {
    let padding = kernel / 2;
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(
            padding, padding, padding, padding,
        ))
        .with_bias(false)
        .init(device)
}
